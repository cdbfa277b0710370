//! Finds the servers' programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Programs of one product, their directories besides `PATH`, and how to install them.
pub(crate) struct Programs {
    pub(crate) names: &'static [&'static str],
    /// A `*` stands for a version.
    pub(crate) folders: &'static [&'static str],
    pub(crate) install: &'static str,
}

impl Programs {
    /// The paths of the programs, in the order of their names.
    ///
    /// A folder that has all of them is preferred to a mix of folders, which could be a mix of versions.
    pub(crate) fn find<const N: usize>(&self) -> [PathBuf; N] {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
        folders.extend(self.folders.iter().flat_map(|pattern| versions(pattern)));
        let in_one = folders.iter().find_map(|folder| self.all_in(&[folder]));
        let found = in_one.or_else(|| self.all_in(&folders)).unwrap_or_else(|| {
            panic!(
                "these tests need {}, found neither in PATH nor in {}; install it: {}",
                self.names.join(" and "),
                self.folders.join(", "),
                self.install,
            )
        });
        found.try_into().expect("as many paths as names")
    }

    fn all_in(&self, folders: &[impl AsRef<Path>]) -> Option<Vec<PathBuf>> {
        let path_of = |name: &&str| {
            folders
                .iter()
                .map(|folder| folder.as_ref().join(name))
                .find(|file| file.is_file())
        };
        self.names.iter().map(path_of).collect()
    }
}

/// The folders that match the pattern, the highest version first.
fn versions(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    // `before` ends inside a folder's name: "/opt/postgresql@" or "/usr/lib/postgresql/".
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, PathBuf::from(format!("{before}{version}{after}"))))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(
        expected = "found neither in PATH nor in /nowhere; install it: `apt-get install something`"
    )]
    fn missing_program_names_install_command() {
        let missing = Programs {
            names: &["sh", "no-such-program"],
            folders: &["/nowhere"],
            install: "`apt-get install something`",
        };
        let [_, _] = missing.find();
    }

    #[test]
    fn highest_version_comes_first() {
        let folder = tempfile::tempdir().expect("room for a temporary folder");
        for name in ["db@9", "db@10", "db@beta", "other@11"] {
            fs::create_dir(folder.path().join(name)).expect("room for a folder");
        }
        let found = versions(&folder.path().join("db@*/bin").display().to_string());
        assert_eq!(
            found,
            ["db@10/bin", "db@9/bin"].map(|name| folder.path().join(name))
        );
    }
}
