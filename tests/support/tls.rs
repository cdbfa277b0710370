//! The certificate of the servers.

use std::fs;
use std::path::{Path, PathBuf};

/// A self-signed certificate for the loopback address.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Creates it in `folder`.
    pub(crate) fn create_in(folder: &Path) -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a self-signed certificate");
        let files = Self {
            certificate: folder.join("server.crt"),
            key: folder.join("server.key"),
        };
        fs::write(&files.certificate, made.cert.pem()).expect("room for the certificate");
        fs::write(&files.key, made.signing_key.serialize_pem()).expect("room for the key");
        files
    }
}
