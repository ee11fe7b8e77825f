//! TLS: both versions of HTTP by what the handshake agreed on, and what is refused without harm to others.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anabranch_server::{Server, ServerOptions, Service, ServiceOptions, TlsError, TlsIdentity};
use bytes::Bytes;
use http::{Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{base64, data, request};

struct Served {
    _directory: tempfile::TempDir,
    server: Server,
    identity: TlsIdentity,
}

fn serve() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path().join("data"), ServiceOptions::default()).unwrap();
    service.create_stream("s", 1).unwrap();
    let identity = TlsIdentity::self_signed(directory.path().join("tls"), "kinesis.test").unwrap();
    let options = ServerOptions { tls: Some(identity.clone()), ..ServerOptions::default() };
    let server = Server::start_with(service, "127.0.0.1:0", &options).unwrap();
    Served { _directory: directory, server, identity }
}

/// A client that trusts a certificate and offers protocols.
struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &'static str,
}

impl Client {
    fn new(served: &Served, protocols: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&served.identity.certificate).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { address: served.server.address(), config: Arc::new(config), name: "kinesis.test" }
    }

    fn call(&self, operation: &str, body: &Value) -> (Version, Value) {
        let request = request(operation, body.to_string()).map(Full::new);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = self.connect().await;
            let answer = match socket.get_ref().1.alpn_protocol() {
                Some(b"h2") => over_http_2(socket, request).await,
                _ => over_http_1(socket, request).await,
            };
            let version = answer.version();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (version, serde_json::from_slice(&body).unwrap())
        })
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(self.name).unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, socket).await.unwrap()
    }
}

async fn over_http_1(socket: TlsStream<TcpStream>, mut request: http::Request<Full<Bytes>>) -> Response<Incoming> {
    request.headers_mut().insert("host", "kinesis.test".parse().unwrap());
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

async fn over_http_2(socket: TlsStream<TcpStream>, mut request: http::Request<Full<Bytes>>) -> Response<Incoming> {
    *request.uri_mut() = "https://kinesis.test/".parse().unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn put_and_get(client: &Client) -> (Version, Vec<String>) {
    client.call("PutRecord", &json!({"StreamName": "s", "PartitionKey": "a", "Data": base64("hello")}));
    let ask = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"});
    let (_, iterator) = client.call("GetShardIterator", &ask);
    let (version, answer) = client.call("GetRecords", &iterator);
    (version, data(&answer))
}

#[test]
fn clients_put_and_get_in_the_http_that_they_agreed_on() {
    let served = serve();
    let offers: [(&[&[u8]], Version); 4] = [
        (&[b"h2", b"http/1.1"], Version::HTTP_2),
        (&[b"h2"], Version::HTTP_2),
        (&[b"http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11), // as older clients, which know of no ALPN
    ];
    for (count, (protocols, expected)) in (1..).zip(offers) {
        let (version, records) = put_and_get(&Client::new(&served, protocols));
        assert_eq!((version, records.len()), (expected, count), "{protocols:?}");
    }
    served.server.stop().unwrap();
}

#[test]
fn the_certificate_is_for_the_machine_s_own_names_too() {
    let served = serve();
    for name in ["localhost", "127.0.0.1", "::1"] {
        put_and_get(&Client { name, ..Client::new(&served, &[]) });
    }
    served.server.stop().unwrap();
}

/// What a server answers to bytes that are all there will be.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.write_all(bytes).unwrap();
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer); // it may be cut off behind the answer
    answer
}

/// The first message of a client that knows no later version than this one, and all else that it takes.
fn hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression
    hello.extend([0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23]); // ecdsa_secp256r1_sha256, secp256r1
    let length = u8::try_from(hello.len()).unwrap();
    [vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length], hello].concat()
}

#[test]
fn versions_before_1_2_are_refused() {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const PROTOCOL_VERSION: u8 = 70;
    let served = serve();
    for minor in [1, 2] {
        let alert = answer(served.server.address(), &hello(minor));
        assert_eq!((alert.len(), alert[0], alert[6]), (7, ALERT, PROTOCOL_VERSION), "1.{}: {alert:?}", minor - 1);
    }
    assert_eq!(answer(served.server.address(), &hello(3))[0], HANDSHAKE, "1.2 is spoken");
    served.server.stop().unwrap();
}

#[test]
fn who_speaks_no_tls_harms_nobody() {
    let served = serve();
    let plain = answer(served.server.address(), b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    for half in [&b""[..], &[0x16], &hello(3)[..20], &[0xff; 300]] {
        answer(served.server.address(), half);
    }
    let stalled = std::net::TcpStream::connect(served.server.address()).unwrap();
    assert_eq!(put_and_get(&Client::new(&served, &[b"h2"])).1, ["hello"]);
    drop(stalled);
    served.server.stop().unwrap();
}

#[test]
fn a_wrong_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    TlsIdentity::self_signed(&one, "one.test").unwrap();
    TlsIdentity::self_signed(&two, "two.test").unwrap();
    let (certificate, key) = (one.join("certificate.pem"), one.join("key.pem"));
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("torn"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    std::fs::write(path("bytes"), [0xff; 1_000]).unwrap();
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(path("nonsense"), nonsense).unwrap();

    let blamed = |certificate: &Path, key: &Path| match TlsIdentity::from_pem_files(certificate, key).unwrap_err()
    {
        TlsError::Io { path, .. } | TlsError::Pem { path, .. } => path,
        other => panic!("{other}"),
    };
    for name in ["none", "empty", "torn", "bytes"] {
        assert_eq!(blamed(&path(name), &key), path(name));
        assert_eq!(blamed(&certificate, &path(name)), path(name));
    }
    assert_eq!(blamed(&certificate, Path::new("/dev/zero")), Path::new("/dev/zero"), "no end of it is waited for");
    assert_eq!(blamed(&path("nonsense"), &key), path("nonsense"));
    assert_eq!(blamed(&certificate, &two.join("key.pem")), certificate, "the key of another certificate");
    assert_eq!(blamed(&key, &certificate), key, "the wrong way round");
    assert!(matches!(TlsIdentity::self_signed(path("x"), "caf\u{e9}"), Err(TlsError::Pem { .. })));
}

#[test]
fn a_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let made = TlsIdentity::self_signed(directory.path(), "localhost").unwrap();
    let mode = std::fs::metadata(directory.path().join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    assert!(!format!("{made:?}").contains("PRIVATE"));
}
