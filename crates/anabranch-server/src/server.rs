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
use tokio::net::TcpListener;
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
use crate::socket::{Peer, Socket, watched};
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

/// Who has a connection.
struct Guest {
    peer: Peer,
    /// The right to it.
    _right: OwnedSemaphorePermit,
    /// Its place among those that are counted.
    _counted: Option<Counted>,
}

async fn accept(listener: TcpListener, port: Port, mut stopped: oneshot::Receiver<()>) {
    let connections = GracefulShutdown::new();
    let mut handshakes = JoinSet::new(); // when the server stops, nobody waits for those who have not even said who they are
    loop {
        tokio::select! {
            accepted = accept_one(&listener, &port) => match (accepted, &port.tls) {
                (Ok((socket, guest)), None) => connect(socket, guest, &port, &connections),
                (Ok((socket, guest)), Some(tls)) => {
                    handshakes.spawn(shake_hands(tls.clone(), socket, guest, port.read_timeout));
                }
                (Err(_), _) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(shaken) = handshakes.join_next() => {
                if let Ok(Some((socket, guest))) = shaken {
                    connect(socket, guest, &port, &connections);
                }
            }
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await; // who takes longer is cut off
}

/// Connections above the bound wait where the system keeps those that were not accepted.
async fn accept_one(listener: &TcpListener, port: &Port) -> io::Result<(Socket, Guest)> {
    let right = Arc::clone(&port.connections).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    let _ = socket.set_nodelay(true); // answers are small, and waited for
    let (socket, peer) = watched(socket);
    Ok((socket, Guest { peer, _right: right, _counted: port.count_connection() }))
}

/// Agrees on keys and on a protocol. It has the place of a connection meanwhile; one that fails or stalls is of no interest to anybody else.
async fn shake_hands(
    tls: TlsAcceptor,
    socket: Socket,
    guest: Guest,
    read_timeout: Duration,
) -> Option<(TlsStream<Socket>, Guest)> {
    let shaken = tokio::time::timeout(read_timeout, tls.accept(socket)).await;
    Some((shaken.ok()?.ok()?, guest))
}

fn connect<S>(socket: S, guest: Guest, port: &Port, connections: &GracefulShutdown)
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
        let (port, begun) = (port.clone(), Arc::clone(&begun));
        let client = Client { peer: guest.peer.clone(), untaken: untaken.clone() };
        move |request| {
            begun.notify_one();
            answer(port.clone(), client.clone(), request)
        }
    });
    let connection = connections.watch(builder.serve_connection(TokioIo::new(socket), answer).into_owned());
    let (read_timeout, write_timeout) = (port.read_timeout, port.write_timeout);
    tokio::spawn(async move {
        let _guest = guest;
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

/// Who asks: whether it is still there, and what it has not taken yet.
#[derive(Clone)]
struct Client {
    peer: Peer,
    untaken: Untaken,
}

async fn answer(port: Port, client: Client, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(answer_or_refuse(port, client, request).await.unwrap_or_else(refusal))
}

async fn answer_or_refuse(
    port: Port,
    client: Client,
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
            until_answered(waiting, &client.peer, &port.room).await?
        }
    };
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, body.held(&client.untaken, room_for_answer)?))
}

/// Waits for what a call waits for: room and a thread are taken when there is something to look for, and given back if somebody else was faster.
///
/// A client that closes its side waits no longer: it may be gone, and what it were given would be invisible to others. If it is there, it is told at once that there was nothing.
async fn until_answered(
    mut waiting: Waiting,
    peer: &Peer,
    room: &Room,
) -> Result<(Response<Body>, OwnedSemaphorePermit), StatusCode> {
    loop {
        tokio::time::sleep(Duration::from_millis(RECEIVE_LOOK_MS)).await;
        let has_news = waiting.has_news();
        if peer.has_left() || (!has_news && waiting.is_over()) {
            return Ok((waiting.give_up(), room.for_answer(AnswerKind::Short).await?));
        }
        if !has_news {
            continue;
        }
        let room_for_answer = match room.for_answer(AnswerKind::Long).await {
            Err(_) if !waiting.is_over() => continue, // there may be some later
            other => other?,
        };
        if peer.has_left() {
            continue; // it did while there was no room
        }
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
mod tests;
