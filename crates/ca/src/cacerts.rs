//! An authority on disk, in the layout of Istio's `cacerts` Secret, so that a root may be shared with a live Istio.
//!
//! Invariant: files are written with mode 0600, and a half-written set is never taken for a whole one: the key comes last.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Larger files are not an authority's.
const MAX_FILE: u64 = 1 << 20;

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT_CHAIN: &str = "cert-chain.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// The four files.
#[derive(Clone)]
pub struct AuthorityPem {
    /// `ca-cert.pem`: the issuing authority's own certificate.
    pub ca_cert: String,
    /// `ca-key.pem`: its key (PKCS#8, SEC1 or PKCS#1).
    pub ca_key: Zeroizing<String>,
    /// `cert-chain.pem`: from the issuing authority up to below the root; the root itself may follow.
    pub cert_chain: String,
    /// `root-cert.pem`: the roots of the trust domain.
    pub root_cert: String,
}

/// Why the files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacertsProblem {
    /// The file system says so.
    #[error("{path} cannot be read or written", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than {MAX_FILE} bytes; it is no certificate or key", path = .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

impl AuthorityPem {
    /// Reads a directory. A missing `cert-chain.pem` is the authority's certificate alone.
    ///
    /// # Errors
    /// When a file is missing, unreadable or too large.
    pub fn read(directory: &Path) -> Result<Self, CacertsProblem> {
        let ca_cert = read(&directory.join(CA_CERT))?.to_string();
        let cert_chain = match read(&directory.join(CERT_CHAIN)) {
            Ok(chain) => chain.to_string(),
            Err(CacertsProblem::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                ca_cert.clone()
            }
            Err(problem) => return Err(problem),
        };
        let ca_key = read(&directory.join(CA_KEY))?;
        let root_cert = read(&directory.join(ROOT_CERT))?.to_string();
        Ok(Self { ca_cert, ca_key, cert_chain, root_cert })
    }

    /// Writes a directory, which exists, with mode 0600.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), CacertsProblem> {
        let Self { ca_cert, ca_key, cert_chain, root_cert } = self;
        write(&directory.join(ROOT_CERT), root_cert)?;
        write(&directory.join(CERT_CHAIN), cert_chain)?;
        write(&directory.join(CA_CERT), ca_cert)?;
        write(&directory.join(CA_KEY), ca_key)
    }
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem").field("ca_cert", &self.ca_cert).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, CacertsProblem> {
    let failed = |source| CacertsProblem::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(CacertsProblem::TooLarge { path: path.to_owned() });
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

/// Whole or not at all: into a new file beside it, then renamed over it.
fn write(path: &Path, text: &str) -> Result<(), CacertsProblem> {
    let failed = |source| CacertsProblem::File { path: path.to_owned(), source };
    let beside = path.with_extension("pem.new");
    match fs::remove_file(&beside) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(failed(problem)),
        Ok(()) | Err(_) => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}
