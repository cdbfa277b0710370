//! Secrets in files, as orchestrators mount them.

use super::{Provider, Secret, Target, secret::not_in_a_password, unavailable};
use crate::{error::Error, util::regular_file};
use std::{io, path::Path};

/// A file that holds a secret. It is read whenever a connection is opened: to rotate the secret, replace the
/// file.
///
/// Symbolic links are followed. A FIFO, a device or a directory is an error.
///
/// ```
/// use db_handler::credentials::SecretFile;
///
/// static PASSWORD: SecretFile = SecretFile::password("/run/secrets/db-password");
/// static EVERYTHING: SecretFile = SecretFile::json("/run/secrets/db.json");
/// # let _ = (&PASSWORD, &EVERYTHING);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SecretFile {
    path: &'static str,
    format: Format,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Password,
    Json,
}

impl SecretFile {
    /// Reads a file that contains only the password. Line breaks at its end are ignored.
    #[must_use]
    pub const fn password(path: &'static str) -> Self {
        Self {
            path,
            format: Format::Password,
        }
    }

    /// Reads a file in the format of [`Secret::from_rds_json`].
    #[must_use]
    pub const fn json(path: &'static str) -> Self {
        Self {
            path,
            format: Format::Json,
        }
    }
}

impl Provider for SecretFile {
    async fn fetch(&self, _: &Target) -> Result<Secret, Error> {
        let path = self.path;
        // The file may be on a network file system: reading it must not block other tasks.
        let read = tokio::task::spawn_blocking(move || regular_file::read(Path::new(path)))
            .await
            .map_err(|_| io::Error::other("reading it timed out"))
            .flatten()
            .and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
            });
        let text =
            read.map_err(|error| unavailable(format_args!("cannot read {path}: {error}")))?;
        match self.format {
            Format::Password => {
                let password = without_mark(&text).trim_end_matches(['\r', '\n']);
                if password.is_empty() {
                    return Err(unavailable(format_args!("{path} is empty")));
                }
                if let Some(what) = not_in_a_password(password) {
                    return Err(unavailable(format_args!(
                        "the password in {path} contains {what}"
                    )));
                }
                Ok(Secret::new(password))
            }
            Format::Json => Secret::from_rds_json(&text)
                .map_err(|error| unavailable(format_args!("{path}: {}", detail(&error)))),
        }
    }
}

/// Removes the byte order mark that some editors write.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Returns the message of `error` without "credentials: ".
fn detail(error: &Error) -> &str {
    let message = error.message();
    message.strip_prefix("credentials: ").unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetch(file: SecretFile) -> Result<Secret, Error> {
        file.fetch(&Target::of_tests("host")).await
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_password() {
        assert_eq!(without_mark("\u{feff}hunter2"), "hunter2");
        assert_eq!(without_mark("hunter2"), "hunter2");
    }

    #[tokio::test]
    async fn a_file_with_two_lines_is_named() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let error = fetch(SecretFile::password(file)).await.expect_err("lines");
        let text = error.to_string();
        let expected = format!("the password in {file} contains a line break");
        assert!(text.contains(&expected), "{text}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let error = fetch(SecretFile::password("/nowhere/db-password"))
            .await
            .expect_err("not there");
        let text = error.to_string();
        assert!(
            text.contains("cannot read /nowhere/db-password: No such file"),
            "{text}"
        );
    }
}
