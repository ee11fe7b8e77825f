//! A port in front of a service: HTTP/1.1, and HTTP/2 for clients that begin with it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::body::Body;
use crate::limits::MAX_BODY_BYTES;
use crate::service::Service;

/// How long a request's head, and then its body, may take to come.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long those who are being answered may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A listener that fails (too many files are open) is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    address: SocketAddr,
    runtime: Runtime,
    accepting: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Listens at an address; port 0 is one that is free.
    ///
    /// # Errors
    ///
    /// What the system says to the address.
    pub fn start(service: Service, address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let accepting = runtime.spawn(accept(listener, service.clone(), stopped));
        Ok(Self { service, address, runtime, accepting, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: takes no more connections, lets those who are being answered be answered for some seconds, makes everything durable.
    ///
    /// # Errors
    ///
    /// As [`Service::close`].
    pub fn stop(self) -> anabranch::Result<()> {
        let Self { service, runtime, accepting, stop, .. } = self;
        let _ = stop.send(()); // it may have ended by itself
        let _ = runtime.block_on(accepting); // a panic in it must not keep the streams from being closed
        runtime.shutdown_timeout(STOP_TIMEOUT);
        service.close()
    }
}

async fn accept(listener: TcpListener, service: Service, mut stopped: oneshot::Receiver<()>) {
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((socket, _)) => connect(socket, &service, &connections),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await; // who takes longer is cut off
}

fn connect(socket: TcpStream, service: &Service, connections: &GracefulShutdown) {
    let _ = socket.set_nodelay(true); // answers are small, and waited for
    let service = service.clone();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let answer = service_fn(move |request| answer(service.clone(), request));
    let connection = connections.watch(builder.serve_connection(TokioIo::new(socket), answer).into_owned());
    tokio::spawn(async move {
        let _ = connection.await; // the client went away, or spoke no HTTP
    });
}

async fn answer(service: Service, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(Err(_)) => return Ok(refusal(StatusCode::BAD_REQUEST)),
        Err(_) => return Ok(refusal(StatusCode::REQUEST_TIMEOUT)),
    };
    let request = Request::from_parts(parts, body);
    // Any call may wait for the disk, and gets a thread to wait on: those who read sockets are few.
    let answer = tokio::task::spawn_blocking(move || service.respond(request)).await;
    Ok(answer.unwrap_or_else(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR)))
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
