//! A port in front of a service: HTTP/1.1, and HTTP/2 for clients that begin with it, in TLS or plain.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::body::Body;
use crate::http_protocol::{self, Answer};
use crate::limits::{
    MAX_CONNECTION_REQUESTS, MAX_CONNECTIONS, MAX_HEALTH_CONNECTIONS, MAX_THREADS, RECEIVE_LOOK_MS,
};
use crate::observe::{Counted, has_foreign_host};
use crate::operations::AnswerKind;
use crate::room::{Room, Untaken};
use crate::service::Service;
use crate::tls::TlsIdentity;
use crate::waiting::Waiting;

/// How long a handshake of TLS, a request's head, and then its body, may take to come; and how long a client of HTTP/2 may take to say that it is still there.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may wait for its client to take it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// A put of more bytes takes so long that nobody else should wait for it.
const QUICK_BYTES: usize = 256 << 10;
/// How often a client of HTTP/2 is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long those who are being answered may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A listener that fails (too many files are open) is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a [`Server`] listens.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Who the server is to its clients. They speak TLS then, 1.2 or 1.3, and nothing else; without it they speak plain HTTP.
    pub tls: Option<TlsIdentity>,
    /// Where [`Service::observe`] is answered, in plain HTTP: health, metrics, and a page. Whoever can reach it can read it, by an address or as `localhost`: a request
    /// for another name is refused (421), since it could be a foreign page's. Nowhere by default.
    pub health: Option<SocketAddr>,
}

/// A [`Service`] behind a port, with threads of its own.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use anabranch_server::{Server, Service, ServiceOptions};
///
/// let service = Service::open("data", ServiceOptions::default())?;
/// let server = Server::start(service, "127.0.0.1:4567")?;
/// println!("http://{}", server.address());
/// std::thread::park();
/// server.stop()?; // whoever is being answered is answered, and everything is durable
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    service: Service,
    runtime: Runtime,
    clients: Listening,
    operators: Option<Listening>,
}

impl Server {
    /// Listens at an address, plainly; port 0 is one that is free.
    ///
    /// # Errors
    ///
    /// What the system says to the address.
    pub fn start(service: Service, address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::start_with(service, address, &ServerOptions::default())
    }

    /// Listens at an address as the options say.
    ///
    /// # Errors
    ///
    /// What the system says to one of the addresses; that of health is named.
    pub fn start_with(service: Service, address: impl ToSocketAddrs, options: &ServerOptions) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().max_blocking_threads(MAX_THREADS).build()?;
        let port = Port { tls: options.tls.as_ref().map(TlsIdentity::acceptor), ..Port::new(service.clone()) };
        let clients = Listening::start(&runtime, address, port)?;
        let operators = options.health.map(|address| {
            let port = Port { desk: Desk::Operators, ..Port::new(service.clone()) };
            let connections = Arc::new(Semaphore::new(MAX_HEALTH_CONNECTIONS));
            let listening = Listening::start(&runtime, address, Port { connections, ..port });
            listening.map_err(|error| io::Error::new(error.kind(), format!("health at {address}: {error}")))
        });
        Ok(Self { service, runtime, clients, operators: operators.transpose()? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.clients.address
    }

    /// Where it tells how it is, if it does.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.operators.as_ref().map(|operators| operators.address)
    }

    /// Stops: says so where it tells how it is, takes no more connections, lets those who are being answered be answered for some seconds, makes everything durable.
    ///
    /// # Errors
    ///
    /// As [`Service::close`].
    pub fn stop(self) -> anabranch::Result<()> {
        let Self { service, runtime, clients, operators } = self;
        service.announce_stop();
        clients.stop(&runtime);
        if let Some(operators) = operators {
            operators.stop(&runtime);
        }
        runtime.shutdown_timeout(STOP_TIMEOUT);
        service.close()
    }
}

/// A port that is listened at.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Listening {
    fn start(runtime: &Runtime, address: impl ToSocketAddrs, port: Port) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        Ok(Self { address, accepting: runtime.spawn(accept(listener, port, stopped)), stop })
    }

    fn stop(self, runtime: &Runtime) {
        let _ = self.stop.send(()); // it may have ended by itself
        let _ = runtime.block_on(self.accepting); // a panic in it must not keep the streams from being closed
    }
}

/// Who comes to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Desk {
    /// Clients of the protocol.
    Clients,
    /// Those who want to know how the server is.
    Operators,
}

/// What the connections of a port share.
#[derive(Clone)]
struct Port {
    service: Service,
    desk: Desk,
    tls: Option<TlsAcceptor>,
    read_timeout: Duration,
    write_timeout: Duration,
    connections: Arc<Semaphore>,
    room: Room,
}

impl Port {
    fn new(service: Service) -> Self {
        Self {
            service,
            desk: Desk::Clients,
            tls: None,
            read_timeout: READ_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            room: Room::default(),
        }
    }

    /// Those who look are not among those whom they see.
    fn count_connection(&self) -> Option<Counted> {
        matches!(self.desk, Desk::Clients).then(|| self.service.counters().connections.one_more())
    }

    /// A browser that looks gets a long one, and nobody puts where operators look.
    fn kind_of_answer(&self, parts: &Parts) -> AnswerKind {
        if self.desk == Desk::Operators || parts.method == Method::GET {
            return AnswerKind::Long;
        }
        http_protocol::operation(parts).map_or(AnswerKind::Short, |operation| operation.answer)
    }

    fn respond(&self, request: Request<Bytes>) -> Answer {
        match self.desk {
            Desk::Clients => self.service.begin(request),
            Desk::Operators if has_foreign_host(request.headers(), request.uri()) => {
                Answer::Now(refusal(StatusCode::MISDIRECTED_REQUEST))
            }
            Desk::Operators => Answer::Now(self.service.observe(&request)),
        }
    }
}

/// The right to a connection, and its place among those that are counted.
type Place = (OwnedSemaphorePermit, Option<Counted>);

async fn accept(listener: TcpListener, port: Port, mut stopped: oneshot::Receiver<()>) {
    let connections = GracefulShutdown::new();
    let mut handshakes = JoinSet::new(); // when the server stops, nobody waits for those who have not even said who they are
    loop {
        tokio::select! {
            accepted = accept_one(&listener, &port) => match (accepted, &port.tls) {
                (Ok((socket, place)), None) => connect(socket, place, &port, &connections),
                (Ok((socket, place)), Some(tls)) => {
                    handshakes.spawn(shake_hands(tls.clone(), socket, place, port.read_timeout));
                }
                (Err(_), _) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(shaken) = handshakes.join_next() => {
                if let Ok(Some((socket, place))) = shaken {
                    connect(socket, place, &port, &connections);
                }
            }
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await; // who takes longer is cut off
}

/// Connections above the bound wait where the system keeps those that were not accepted.
async fn accept_one(listener: &TcpListener, port: &Port) -> io::Result<(TcpStream, Place)> {
    let right = Arc::clone(&port.connections).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    let place = (right, port.count_connection());
    let _ = socket.set_nodelay(true); // answers are small, and waited for
    Ok((socket, place))
}

/// Agrees on keys and on a protocol. It has the place of a connection meanwhile; one that fails or stalls is of no interest to anybody else.
async fn shake_hands(
    tls: TlsAcceptor,
    socket: TcpStream,
    place: Place,
    read_timeout: Duration,
) -> Option<(TlsStream<TcpStream>, Place)> {
    let shaken = tokio::time::timeout(read_timeout, tls.accept(socket)).await;
    Some((shaken.ok()?.ok()?, place))
}

fn connect<S>(socket: S, place: Place, port: &Port, connections: &GracefulShutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(port.read_timeout);
    builder.http1().half_close(true); // who has said all may close its side, and is answered
    builder.http1().writev(true); // answers are kept as they are, and count, until they are written
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(port.read_timeout);
    http2.max_concurrent_streams(MAX_CONNECTION_REQUESTS);
    let (begun, untaken) = (Arc::new(Notify::new()), Untaken::new(port.room.clone()));
    let answer = service_fn({
        let (port, begun, untaken) = (port.clone(), Arc::clone(&begun), untaken.clone());
        move |request| {
            begun.notify_one();
            answer(port.clone(), untaken.clone(), request)
        }
    });
    let connection = connections.watch(builder.serve_connection(TokioIo::new(socket), answer).into_owned());
    let (read_timeout, write_timeout) = (port.read_timeout, port.write_timeout);
    tokio::spawn(async move {
        let _place = place;
        let mut connection = pin!(connection);
        // The timeouts of HTTP begin when it is known which HTTP it is: who does not even say that is sent away here.
        tokio::select! {
            _ = &mut connection => return, // the client went away, or spoke no HTTP
            () = begun.notified() => {}
            () = tokio::time::sleep(read_timeout) => return,
        }
        tokio::select! {
            _ = connection => {}
            () = until_left_lying(&untaken, write_timeout) => {}
        }
    });
}

/// Waits until an answer was not taken for so long.
async fn until_left_lying(untaken: &Untaken, timeout: Duration) {
    while let Some(left) = timeout.checked_sub(untaken.oldest().map_or(Duration::ZERO, |since| since.elapsed())) {
        tokio::time::sleep(left.max(timeout / 16)).await;
    }
}

async fn answer(port: Port, untaken: Untaken, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(answer_or_refuse(port, untaken, request).await.unwrap_or_else(refusal))
}

async fn answer_or_refuse(
    port: Port,
    untaken: Untaken,
    request: Request<Incoming>,
) -> Result<Response<Body>, StatusCode> {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(port.read_timeout, port.room.read(body)).await;
    let (body, room) = read.map_err(|_| StatusCode::REQUEST_TIMEOUT)??;
    let kind = port.kind_of_answer(&parts);
    let room_for_answer = port.room.for_answer(kind).await?;
    let is_quick = kind == AnswerKind::Put && body.len() <= QUICK_BYTES && port.service.has_quick_puts();
    let request = Request::from_parts(parts, body);
    let (answer, room_for_answer) = if is_quick {
        let _room = room; // until the request is dropped
        (Answer::Now(port.service.respond_among_sockets(request)), room_for_answer)
    } else {
        // Any other call may wait for the disk, and gets a thread to wait on: those who read sockets are few. It goes on if its client goes away, and keeps its room until it is done.
        let port = port.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _room = room;
            (port.respond(request), room_for_answer)
        });
        answer.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?
    };
    let (answer, room_for_answer) = match answer {
        Answer::Now(answer) => (answer, room_for_answer),
        Answer::Later(waiting) => {
            drop(room_for_answer);
            until_answered(waiting, &port.room).await?
        }
    };
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, body.held(&untaken, room_for_answer)?))
}

/// Waits for what a call waits for: room and a thread are taken when there is something to look for, and given back if somebody else was faster.
async fn until_answered(
    mut waiting: Waiting,
    room: &Room,
) -> Result<(Response<Body>, OwnedSemaphorePermit), StatusCode> {
    loop {
        tokio::time::sleep(Duration::from_millis(RECEIVE_LOOK_MS)).await;
        if !waiting.has_news() {
            if waiting.is_over() {
                return Ok((waiting.give_up(), room.for_answer(AnswerKind::Short).await?));
            }
            continue;
        }
        let room_for_answer = match room.for_answer(AnswerKind::Long).await {
            Err(_) if !waiting.is_over() => continue, // there may be some later
            other => other?,
        };
        let look = tokio::task::spawn_blocking(move || (waiting.look(), room_for_answer)).await;
        let (answer, room_for_answer) = look.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        waiting = match answer {
            Answer::Now(answer) => return Ok((answer, room_for_answer)),
            Answer::Later(waiting) => waiting,
        };
    }
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::limits::{IDLE_REQUEST_BYTES, MAX_ANSWER_BYTES, MAX_ANSWERS_BYTES, MAX_BODY_BYTES, REQUEST_BYTES};
    use crate::service::ServiceOptions;

    struct Served {
        _directory: tempfile::TempDir,
        port: Port,
        address: SocketAddr,
        runtime: Runtime,
    }

    /// A port with little patience and little room, in a directory of its own.
    fn serve() -> Served {
        serve_as(|_, port| Port {
            read_timeout: Duration::from_millis(500),
            room: Room::new(REQUEST_BYTES + 10, MAX_ANSWER_BYTES, Duration::from_millis(250)),
            ..port
        })
    }

    fn serve_as(change: impl FnOnce(&tempfile::TempDir, Port) -> Port) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
        let port = change(&directory, Port::new(service));
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = port.clone();
        runtime.spawn(async move {
            let (_keep, stopped) = oneshot::channel();
            accept(listener, accepting, stopped).await;
        });
        Served { _directory: directory, port, address, runtime }
    }

    fn connect_to(address: SocketAddr) -> std::net::TcpStream {
        let socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap(); // far above the server's patience
        socket
    }

    /// Whether the server ended it, whatever it said before.
    fn is_closed(mut socket: std::net::TcpStream) -> bool {
        let closed = socket.read_to_end(&mut Vec::new());
        !matches!(&closed, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[track_caller]
    fn until(condition: impl Fn() -> bool) {
        for _ in 0..2_000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never came to be");
    }

    #[test]
    fn a_connection_that_never_asks_is_closed() {
        let served = serve();
        for beginning in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "POST / HT"] {
            let mut socket = connect_to(served.address);
            socket.write_all(beginning.as_bytes()).unwrap();
            assert!(is_closed(socket), "{beginning:?}");
        }
    }

    fn identify(directory: &tempfile::TempDir) -> TlsAcceptor {
        TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap().acceptor()
    }

    #[test]
    fn a_handshake_that_stalls_is_cut_off() {
        let served = serve_as(|directory, port| Port {
            tls: Some(identify(directory)),
            read_timeout: Duration::from_millis(100),
            ..port
        });
        for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
            let mut socket = connect_to(served.address);
            socket.write_all(beginning).unwrap();
            assert!(is_closed(socket), "{beginning:?}");
        }
    }

    #[test]
    fn a_handshake_has_the_place_of_a_connection_and_gives_it_back() {
        let connections = Arc::new(Semaphore::new(1));
        let served = serve_as(|directory, port| Port {
            tls: Some(identify(directory)),
            connections: Arc::clone(&connections),
            ..port
        });
        let taken = || served.port.connections.available_permits() == 0;
        for _ in 0..3 {
            let mut socket = connect_to(served.address);
            socket.write_all(b"\x16\x03").unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap(); // half a handshake, which fails
            assert!(is_closed(socket));
        }
        let socket = connect_to(served.address);
        let mut waiting = connect_to(served.address);
        waiting.write_all(b"no TLS at all, which is told at once to whoever has a place").unwrap();
        until(taken);
        waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(waiting.read(&mut [0]).is_err(), "there is no second place");
        drop(socket);
        waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(is_closed(waiting));
    }

    #[test]
    fn stopping_waits_for_no_handshake() {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
        let tls = TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap();
        let server = Server::start_with(
            service,
            "127.0.0.1:0",
            &ServerOptions { tls: Some(tls), ..ServerOptions::default() },
        );
        let server = server.unwrap();
        let socket = connect_to(server.address());
        until(|| server.service.counters().connections.get() == 1);
        let closed = std::thread::spawn(|| is_closed(socket)); // sooner than it would be cut off
        server.stop().unwrap();
        assert!(closed.join().unwrap());
    }

    #[test]
    fn bodies_wait_for_room() {
        let served = serve();
        let status = |body: &str| {
            let mut socket = connect_to(served.address);
            let head = format!(
                "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(head.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = socket.read_to_string(&mut answer); // it may be cut off behind the answer
            answer.split(' ').nth(1).unwrap_or_default().to_owned()
        };
        for _ in 0..3 {
            assert_eq!(status("0123456789"), "403", "room is given back");
            assert_eq!(status("0123456789a"), "503", "there never is so much");
        }
    }

    #[test]
    fn a_body_takes_room_when_it_comes_and_not_when_it_is_announced() {
        let served = serve_as(|_, port| Port {
            room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(50)),
            ..port
        });
        let announcing: Vec<_> = (0..8).map(|_| connect_to(served.address)).collect();
        for mut socket in &announcing {
            let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY_BYTES}\r\n\r\n");
            socket.write_all(head.as_bytes()).unwrap();
        }
        until(|| served.port.room.left_for_bodies() == MAX_BODY_BYTES - 8 * IDLE_REQUEST_BYTES);
        let mut socket = connect_to(served.address);
        socket.write_all(request("ListStreams", "{}").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn ask(address: SocketAddr, operation: &str, body: &str) -> String {
        let mut socket = connect_to(address);
        socket.write_all(request(operation, body).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    #[track_caller]
    fn ask_well(address: SocketAddr, operation: &str, body: &str) -> String {
        let answer = ask(address, operation, body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    const CREATE: &str = r#"{"StreamName": "s", "ShardCount": 1}"#;
    const PUT: &str = r#"{"StreamName": "s", "PartitionKey": "a", "Data": "aGVsbG8="}"#;

    #[test]
    fn puts_and_short_calls_do_not_wait_behind_answers_that_nobody_takes() {
        let served = serve_as(|_, port| Port {
            room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(250)),
            ..port
        });
        let room = &served.port.room;
        let _long = served.runtime.block_on(room.for_answer(AnswerKind::Long)).unwrap(); // all there is
        assert!(ask(served.address, "ListStreams", "{}").starts_with("HTTP/1.1 503"));
        ask_well(served.address, "CreateStream", CREATE);
        ask_well(served.address, "PutRecord", PUT);
    }

    /// A quick put is answered without a look at who asks; where operators look, nobody puts.
    #[test]
    fn nothing_is_put_where_operators_look() {
        let options = ServiceOptions { durability: anabranch::Durability::Buffered, ..ServiceOptions::default() };
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), options).unwrap();
        service.create_stream("s", 1).unwrap();
        let operators = serve_as(|_, port| Port { service: service.clone(), desk: Desk::Operators, ..port });
        assert!(ask(operators.address, "PutRecord", PUT).starts_with("HTTP/1.1 421"));
        let named = request("PutRecord", PUT).replace("host: x", "host: localhost");
        let mut socket = connect_to(operators.address);
        socket.write_all(named.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        let clients = serve_as(|_, port| Port { service, ..port });
        ask_well(clients.address, "PutRecord", PUT);
    }

    #[test]
    fn events_that_nobody_takes_have_room_and_wait_for_it() {
        let served = serve_as(|_, port| port);
        let address = served.address;
        seven_megabytes(address);
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
        let registered = ask_well(
            address,
            "RegisterStreamConsumer",
            &format!(r#"{{"StreamARN": "{arn}", "ConsumerName": "c"}}"#),
        );
        let consumer = registered.split(r#""ConsumerARN":""#).nth(1).unwrap().split('"').next().unwrap();
        let position = r#"{"Type": "TRIM_HORIZON"}"#;
        let subscribe =
            format!(r#"{{"ConsumerARN": "{consumer}", "ShardId": "0", "StartingPosition": {position}}}"#);
        let room = &served.port.room;
        let whole = room.left_for_events();
        let mut taken: Vec<_> = std::iter::from_fn(|| Untaken::new(room.clone()).room_for_event()).collect();
        let mut socket = connect_to(address);
        socket.write_all(request("SubscribeToShard", &subscribe).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(socket.read(&mut [0]).is_err(), "there is no room for an event");
        taken.clear();
        until(|| room.left_for_events() < whole);
        drop(socket);
        until(|| room.left_for_events() == whole);
    }

    /// Makes a stream of seven records of a megabyte, and gives the body of a request for them.
    fn seven_megabytes(address: SocketAddr) -> String {
        ask_well(address, "CreateStream", CREATE);
        let data = base64_simd::STANDARD.encode_to_string(vec![7; 1_000_000]);
        for _ in 0..7 {
            let put = format!(r#"{{"StreamName": "s", "PartitionKey": "a", "Data": "{data}"}}"#);
            ask_well(address, "PutRecord", &put);
        }
        let shard = r#"{"StreamName": "s", "ShardId": "0", "ShardIteratorType": "TRIM_HORIZON"}"#;
        ask_well(address, "GetShardIterator", shard)
    }

    fn request(operation: &str, body: &str) -> String {
        let headers: String = headers(operation).map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    }

    fn headers(operation: &str) -> [(&'static str, String); 4] {
        let authorization = "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";
        [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("Kinesis_20131202.{operation}")),
            ("x-amz-date", "20260101T000000Z".to_owned()),
            ("authorization", authorization.to_owned()),
        ]
    }

    #[test]
    fn a_put_needs_little_room_for_its_answer() {
        let served = serve_as(|_, port| Port {
            room: Room::new(MAX_BODY_BYTES, REQUEST_BYTES, Duration::from_millis(50)),
            ..port
        });
        served.port.service.create_stream("s", 1).unwrap();
        let put = r#"{"StreamName": "s", "PartitionKey": "a", "Data": ""}"#;
        assert!(ask(served.address, "PutRecord", put).starts_with("HTTP/1.1 200"));
        assert!(ask(served.address, "ListStreams", "{}").starts_with("HTTP/1.1 503"));
    }

    #[test]
    fn a_subscription_that_cannot_start_gives_its_room_back() {
        let served = serve_as(|_, port| Port {
            room: Room::new(MAX_BODY_BYTES, MAX_ANSWER_BYTES, Duration::from_millis(250)), // one answer at a time
            ..port
        });
        ask(served.address, "CreateStream", r#"{"StreamName": "s", "ShardCount": 1}"#);
        let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
        let registered = format!(r#"{{"StreamARN": "{stream}", "ConsumerName": "c"}}"#);
        let answer = ask(served.address, "RegisterStreamConsumer", &registered);
        let (_, rest) = answer.split_once(r#""ConsumerARN":""#).unwrap();
        let (consumer, _) = rest.split_once('"').unwrap();
        let subscribe = |kind: &str| {
            format!(r#"{{"ConsumerARN": "{consumer}", "ShardId": "0", "StartingPosition": {{"Type": "{kind}"}}}}"#)
        };
        for _ in 0..10 {
            let answer = ask(served.address, "SubscribeToShard", &subscribe("AT_SEQUENCE_NUMBER"));
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        let mut socket = connect_to(served.address);
        socket.write_all(request("SubscribeToShard", &subscribe("LATEST")).as_bytes()).unwrap();
        let (mut answer, mut bytes) = (Vec::new(), [0; 4_096]);
        while !String::from_utf8_lossy(&answer).contains("SubscribeToShardEvent") {
            let read = socket.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        until(|| served.port.room.left_for_answers() == MAX_ANSWER_BYTES);
    }

    fn impatient() -> Served {
        serve_as(|_, port| Port { write_timeout: Duration::from_secs(2), ..port })
    }

    #[test]
    fn who_leaves_an_answer_lying_loses_the_connection_and_its_room() {
        let served = impatient();
        let iterator = seven_megabytes(served.address);
        let get = request("GetRecords", &iterator);
        let whole = MAX_ANSWERS_BYTES;
        until(|| served.port.room.left_for_answers() == whole);
        let sockets: Vec<_> = (0..8).map(|_| connect_to(served.address)).collect(); // more than the system takes from the server
        for mut socket in &sockets {
            socket.write_all(get.as_bytes()).unwrap();
        }
        until(|| served.port.room.left_for_answers() < whole - (4 << 20));
        until(|| served.port.room.left_for_answers() == whole);
        until(|| served.port.connections.available_permits() == MAX_CONNECTIONS - 1); // the next one has its place already
        // Who takes it, gets it.
        let mut socket = connect_to(served.address);
        socket.write_all(get.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.len() > 7_000_000);
    }

    /// The socket takes all there is; it is the client of HTTP/2 that gives no room for the answer.
    #[test]
    #[allow(clippy::big_endian_bytes, reason = "the framing is that of HTTP")]
    fn who_opens_no_window_for_an_answer_loses_the_connection_and_its_room() {
        let served = impatient();
        let iterator = seven_megabytes(served.address);
        let mut socket = connect_to(served.address);
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let field = |name: &str, value: &str| {
            let prefix = |length: usize| match length {
                0..127 => vec![u8::try_from(length).unwrap()],
                _ => vec![127, u8::try_from(length - 127).unwrap()], // below 255
            };
            [&[0][..], &prefix(name.len()), name.as_bytes(), &prefix(value.len()), value.as_bytes()].concat()
        };
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
        let mut head = pseudo.map(|(name, value)| field(name, value)).concat();
        head.extend(headers("GetRecords").map(|(name, value)| field(name, &value)).concat());
        let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]); // SETTINGS: INITIAL_WINDOW_SIZE = 0
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        socket.write_all(&no_window).unwrap();
        socket.write_all(&frame(1, 4, 1, &head)).unwrap(); // HEADERS, END_HEADERS
        socket.write_all(&frame(0, 1, 1, iterator.as_bytes())).unwrap(); // DATA, END_STREAM
        until(|| served.port.room.left_for_answers() < MAX_ANSWERS_BYTES - (2 << 20));
        assert!(is_closed(socket));
        until(|| served.port.room.left_for_answers() == MAX_ANSWERS_BYTES);
    }
}
