//! Whatever the files hold, reading them ends in a certificate, a key, or words.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::settings::write_private;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Reads the bytes as everything that a file can be.
    fn refuse(&self, content: &[u8]) {
        let path = self.0.path().join("file");
        let passphrase = self.0.path().join("passphrase");
        write_private(&path, content, true).unwrap();
        write_private(&passphrase, b"word", true).unwrap();
        for error in [
            load_chain(&path, true).unwrap_err(),
            load_roots(&path, true).map(drop).unwrap_err(),
            load_key(&path, None).map(drop).unwrap_err(),
            load_key(&path, Some(&passphrase)).map(drop).unwrap_err(),
            load_revocation(&path).unwrap_err(),
        ] {
            let words = error.to_string();
            assert!(words.contains(&path.display().to_string()), "{words}");
        }
    }
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let files = Files::new();
    let path = files.0.path().join("large");
    let file = fs::File::create(&path).unwrap();
    file.set_len(FILE_MAX + 10).unwrap();
    assert!(load_chain(&path, true).unwrap_err().to_string().contains("larger than"));
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    assert!(load_revocation(&path).unwrap_err().to_string().contains("larger than 64 MiB"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_refused_by_name(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        Files::new().refuse(&bytes);
    }

    #[test]
    fn what_looks_like_pem_is_refused_by_name(
        label in "(ENCRYPTED |RSA |EC )?PRIVATE KEY|CERTIFICATE|X509 CRL",
        inside in "[A-Za-z0-9+/]{0,120}={0,2}",
        closed in any::<bool>(),
    ) {
        let end = if closed { format!("-----END {label}-----\n") } else { String::new() };
        // Not everything in PEM is looked into before it is put to use; what is a key by its label is
        // one until then.
        if !label.ends_with("PRIVATE KEY") || label.starts_with("ENCRYPTED") {
            Files::new().refuse(format!("-----BEGIN {label}-----\n{inside}\n{end}").as_bytes());
        }
    }
}
