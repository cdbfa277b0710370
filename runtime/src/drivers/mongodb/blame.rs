//! Finds the part of a URL that the driver rejects. The driver's own message is left out: it may quote the URL, and
//! with it a secret.

use crate::util::regular_file;
use ::mongodb::options::{ClientOptions, ConnectionString, Tls};
use std::path::PathBuf;

/// The parts of a URL.
struct Parts<'a> {
    scheme: &'a str,
    /// User, password and hosts.
    authority: &'a str,
    path: &'a str,
    options: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let options: Vec<&str> = query.split('&').filter(|one| !one.is_empty()).collect();
        // Apparent options may be the rest of a password that contains a `?`.
        let is_certain = authority.contains('@') || !query.contains('@');
        is_certain.then_some(Self {
            scheme,
            authority,
            path,
            options,
        })
    }

    /// Whether the driver accepts the URL with these options.
    fn is_taken_with<'b>(&self, options: impl Iterator<Item = &'b str>) -> bool {
        let options: Vec<&str> = options.collect();
        let Self {
            scheme,
            authority,
            path,
            ..
        } = self;
        let path = if path.is_empty() { "/" } else { path };
        let url = format!("{scheme}://{authority}{path}?{}", options.join("&"));
        ConnectionString::parse(url).is_ok()
    }

    /// The first option without which the URL would be valid, or else the first that is invalid by itself.
    fn wrong_option(&self) -> Option<&'a str> {
        let others = |wrong: usize| {
            let others = self.options.iter().enumerate();
            others
                .filter(move |(index, _)| *index != wrong)
                .map(|(_, option)| *option)
        };
        let mut indices = 0..self.options.len();
        if let Some(index) = indices.clone().find(|&one| self.is_taken_with(others(one))) {
            return Some(self.options[index]);
        }
        let bare = Self {
            scheme: "mongodb",
            authority: "localhost",
            path: "/",
            options: Vec::new(),
        };
        let alone = |&index: &usize| !bare.is_taken_with([self.options[index]].into_iter());
        indices.find(alone).map(|index| self.options[index])
    }
}

/// The error in a URL that the driver cannot parse; `None` if it is not certain.
pub(super) fn wrong_part(url: &str) -> Option<String> {
    let parts = Parts::of(url)?;
    if let Some(option) = parts.wrong_option() {
        let Some((key, _)) = option.split_once('=') else {
            return Some("an option has no value, as in `tls=true`".to_owned());
        };
        // A key has no other characters. Text that is not a key may be part of a password.
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        return Some(if is_known(key) {
            format!(
                "the value of the option `{key}` is not valid, or does not go with the other options"
            )
        } else {
            format!("the option `{key}` is not one that this driver knows, or is not built in")
        });
    }
    let hosts = parts
        .authority
        .rsplit_once('@')
        .map_or(parts.authority, |(_, hosts)| hosts);
    hosts
        .split(',')
        .any(has_wrong_port)
        .then(|| "the port of a host must be from 1 to 65535".to_owned())
}

/// Whether the driver has an option of this name, for any value. Its message about an unknown option is the same for
/// each name.
fn is_known(key: &str) -> bool {
    let url = format!("mongodb://localhost/?{key}=");
    match ConnectionString::parse(url) {
        Ok(_) => true,
        Err(error) => !error.to_string().contains("is an invalid option"),
    }
}

fn has_wrong_port(host: &str) -> bool {
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => host.rsplit_once(':').map(|(_, port)| port),
    };
    port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0))
}

/// A file with certificates, or with a private key and its certificate, and the option that names it.
struct TlsFile {
    option: &'static str,
    path: PathBuf,
    has_key: bool,
}

/// Returns the option that names an unusable file, with the file and the reason. The driver would accept a file without
/// certificates as an empty list of trusted authorities, and it blocks while it reads.
pub(super) async fn wrong_file(options: &ClientOptions) -> Option<String> {
    let Some(Tls::Enabled(tls)) = &options.tls else {
        return None;
    };
    let files = [
        ("tlsCAFile", &tls.ca_file_path, false),
        ("tlsCertificateKeyFile", &tls.cert_key_file_path, true),
    ];
    let files: Vec<TlsFile> = files
        .into_iter()
        .filter_map(|(option, path, has_key)| {
            Some(TlsFile {
                option,
                path: path.clone()?,
                has_key,
            })
        })
        .collect();
    if files.is_empty() {
        return None;
    }
    // The file may be on a network file system: reading it must not block other tasks.
    let looking = move || files.iter().find_map(TlsFile::wrong);
    tokio::task::spawn_blocking(looking).await.ok().flatten()
}

impl TlsFile {
    fn wrong(&self) -> Option<String> {
        let Self { option, path, .. } = self;
        let reason = match regular_file::read(path) {
            Ok(content) => format!("has {}", self.missing(&content)?),
            Err(error) => format!("cannot be read: {error}"),
        };
        Some(format!(
            "the file `{}` of the option `{option}` {reason}",
            path.display()
        ))
    }

    fn missing(&self, content: &[u8]) -> Option<&'static str> {
        let content = String::from_utf8_lossy(content);
        let has = |end: &str| {
            let begin =
                |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(end);
            content.lines().any(begin)
        };
        if self.has_key && !has("PRIVATE KEY-----") {
            Some("no private key in PEM format (`-----BEGIN PRIVATE KEY-----`)")
        } else if !has("BEGIN CERTIFICATE-----") {
            Some("no certificate in PEM format (`-----BEGIN CERTIFICATE-----`)")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_option_is_named_without_its_value() {
        for (options, named) in [
            ("authMechanism=XY", "value of the option `authMechanism`"),
            ("maxPoolSize=abc", "value of the option `maxPoolSize`"),
            (
                "tls=true&maxPoolSize=0x1&appName=x",
                "value of the option `maxPoolSize`",
            ),
            ("hunter2=1", "option `hunter2` is not one"),
            ("compressors=zstd", "option `compressors` is not one"),
            (
                "tls=false&tlsCAFile=/a",
                "does not go with the other options",
            ),
            ("tls", "no value"),
            ("maxPoolSize=abc&authMechanism=XY", "option `maxPoolSize`"),
        ] {
            let url = format!("mongodb://app:secret@host/db?{options}");
            let said = wrong_part(&url).unwrap_or_default();
            assert!(said.contains(named), "{options}: {said:?}");
            assert!(!said.contains("XY") && !said.contains("abc"), "{said}");
        }
    }

    #[test]
    fn what_a_file_lacks_is_named() {
        let missing = |has_key, content: &str| {
            let file = TlsFile {
                option: "",
                path: PathBuf::new(),
                has_key,
            };
            file.missing(content.as_bytes()).unwrap_or_default()
        };
        let certificate = "-----BEGIN CERTIFICATE-----\r\nAA==\r\n-----END CERTIFICATE-----\r\n";
        let key = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
        assert!(missing(false, "").contains("no certificate"));
        assert!(missing(false, key).contains("no certificate"));
        assert!(missing(true, certificate).contains("no private key"));
        assert!(missing(true, key).contains("no certificate"));
        assert_eq!(missing(false, certificate), "");
        assert_eq!(missing(true, &format!("{key}{certificate}")), "");
    }

    #[test]
    fn wrong_port_is_named() {
        for hosts in ["host:99999", "host:0", "a:27017,b:x", "[::1]:99999"] {
            let said = wrong_part(&format!("mongodb://app:secret@{hosts}/db"));
            assert!(said.is_some_and(|said| said.contains("port")), "{hosts}");
        }
    }

    #[test]
    fn part_of_a_password_is_never_named() {
        for url in [
            "mongodb://app:hun?ter2=x@host/db",
            "mongodb://app:hun?ter2@host/db?tls=true",
        ] {
            assert_eq!(wrong_part(url), None, "{url}");
        }
    }
}
