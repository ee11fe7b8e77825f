//! A connection of TCP, and whether its client is still there: told to those who neither read nor write.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, Interest, Join, ReadBuf, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection of which a [`Peer`] knows.
pub(crate) type Socket = Join<Reading, OwnedWriteHalf>;

/// The client of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<OwnedReadHalf>);

/// What the client says.
#[derive(Debug)]
pub(crate) struct Reading(Arc<OwnedReadHalf>);

/// The connection, and who is at its other end.
pub(crate) fn watched(socket: TcpStream) -> (Socket, Peer) {
    let (reading, writing) = socket.into_split();
    let reading = Arc::new(reading);
    (join(Reading(Arc::clone(&reading)), writing), Peer(reading))
}

impl Peer {
    /// Whether it has closed its side, or all of the connection: which of the two, nobody can tell who does not write to it. HTTP does not read while a request is answered, and so does not
    /// see it.
    pub(crate) fn has_left(&self) -> bool {
        let ready = pin!(self.0.ready(Interest::READABLE));
        let found = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(found, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket: &TcpStream = self.0.as_ref().as_ref();
        loop {
            ready!(socket.poll_read_ready(context))?;
            match socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}
