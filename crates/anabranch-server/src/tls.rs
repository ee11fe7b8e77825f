//! TLS in front of a port: who the server is, and which versions and protocols it speaks.
//!
//! The protocol above is agreed on in the handshake (ALPN): HTTP/2 for clients that offer it, as the Java and JavaScript SDKs, HTTP/1.1 for all others.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anabranch::storage::Disk;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::catalog::sync_names;
use crate::limits::MAX_PEM_BYTES;

/// What the server speaks inside TLS, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The names of a server that is asked from its own machine.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Who a server is: a chain of certificates and the key of its first one. Clones share them.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use anabranch_server::TlsIdentity;
///
/// let directory = tempfile::tempdir()?;
/// let made = TlsIdentity::self_signed(directory.path().join("tls"), "kinesis.test")?;
/// let certificate = std::fs::read_to_string(&made.certificate)?; // what clients are to trust
/// assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
///
/// let again = TlsIdentity::self_signed(directory.path().join("tls"), "kinesis.test")?;
/// assert_eq!(std::fs::read_to_string(&again.certificate)?, certificate); // once made it is kept
///
/// let read = TlsIdentity::from_pem_files(&made.certificate, directory.path().join("tls/none.pem"));
/// assert!(read.unwrap_err().to_string().contains("tls/none.pem"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    /// The file of the certificates, which a client has to trust where nobody that it trusts has signed them.
    pub certificate: PathBuf,
}

/// Why there is no identity to be had from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What is in a file is no certificate or no key, or the two do not belong together.
    #[error("{}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl TlsIdentity {
    /// Reads an identity from two files in PEM: the chain of certificates, the server's own first, and its key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    ///
    /// # Errors
    ///
    /// [`TlsError`] with the path of the file that is to blame; the certificates' where the key is that of another one.
    pub fn from_pem_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain = read_chain(certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_pem(key, "private key", &error))?;
        let config = configure(chain, key)
            .map_err(|error| TlsError::Pem { path: certificate.to_owned(), reason: error.to_string() })?;
        Ok(Self { config: Arc::new(config), certificate: certificate.to_owned() })
    }

    /// An identity that signs itself, for `localhost`, its addresses and one more name or address: made in a directory the first time, kept there and read from then on.
    ///
    /// Clients are told to trust its [certificate](Self::certificate), as by `AWS_CA_BUNDLE` or `NODE_EXTRA_CA_CERTS`. To have another one, remove the directory.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Self::from_pem_files); a name that no certificate can have, as one of the directory's.
    pub fn self_signed(directory: impl AsRef<Path>, name: &str) -> Result<Self, TlsError> {
        let directory = directory.as_ref();
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        if !certificate.exists() || !key.exists() {
            make(directory, &certificate, &key, name)?;
        }
        Self::from_pem_files(certificate, key)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("certificate", &self.certificate).finish_non_exhaustive() // not the key
    }
}

/// Makes an identity. From when this returns on a power cut takes nothing of it; one before leaves both of its files, or no certificate, and it is made again.
///
/// That holds by the order alone, each step being durable before the next one: the directories, the end of a certificate whose key is gone (beside a new key it would be taken for that one's), the key, the
/// certificate.
fn make(directory: &Path, certificate: &Path, key: &Path, name: &str) -> Result<(), TlsError> {
    let names = LOCAL_NAMES.into_iter().chain([name]).map(str::to_owned).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Pem { path: certificate.to_owned(), reason: format!("{name}: {error}") })?;
    fs::create_dir_all(directory).map_err(failed(directory))?;
    remove(certificate).map_err(failed(certificate))?;
    sync_names(&Disk, certificate).map_err(failed(directory))?;
    write(key, &made.signing_key.serialize_pem())?;
    write(certificate, &made.cert.pem())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    chain.map_err(|error| no_pem(path, "certificate", &error))
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12])?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed(path))?;
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes).map_err(failed(path))?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        let reason = format!("more than {MAX_PEM_BYTES} bytes");
        return Err(TlsError::Pem { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

/// Writes a file whole or not at all, for the eyes of its owner.
fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    write_durably(path, text).map_err(failed(path))
}

/// The leftover of a write that was cut short may have other permissions, and be open elsewhere: the file is a new one.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all() // the name, before that of the next file
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn no_pem(path: &Path, what: &str, error: &pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), reason: format!("no {what} in PEM: {error}") }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    move |source| TlsError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_again_where_a_file_of_it_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let made = || TlsIdentity::self_signed(directory.path(), "localhost").unwrap();
        made();
        for name in [CERTIFICATE, KEY] {
            fs::remove_file(directory.path().join(name)).unwrap();
            made();
        }
    }

    /// As a power cut between the two would.
    #[test]
    fn a_certificate_whose_key_was_lost_is_not_left_beside_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let made = || TlsIdentity::self_signed(directory.path(), "localhost");
        made().unwrap();
        fs::remove_file(directory.path().join(KEY)).unwrap();
        let obstacle = directory.path().join(CERTIFICATE).with_extension("new");
        fs::create_dir(&obstacle).unwrap();
        made().unwrap_err();
        assert!(directory.path().join(KEY).exists(), "it came so far");
        fs::remove_dir(&obstacle).unwrap();
        made().unwrap();
    }

    #[test]
    fn a_leftover_that_all_could_read_does_not_become_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let leftover = directory.path().join(KEY).with_extension("new");
        fs::write(&leftover, "half").unwrap();
        fs::set_permissions(&leftover, PermissionsExt::from_mode(0o644)).unwrap();
        TlsIdentity::self_signed(directory.path(), "localhost").unwrap();
        for name in [CERTIFICATE, KEY] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
