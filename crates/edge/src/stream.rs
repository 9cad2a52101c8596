//! A connection's socket as the dispatcher sees it: reads are rationed, stalls are noted, orders are followed.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::connection::{Connection, Order, Stage};
use crate::statistics::Closed;

/// Answers given before there is a request: nobody would read a body.
pub(crate) const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
pub(crate) const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// A TCP or unix socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn as_socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    /// Whether there is something to read that the runtime may not have heard of.
    fn has_input(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        matches!(self.as_socket().peek(&mut byte), Ok(count) if count > 0)
    }

    /// Writes what fits into the socket's buffer, for answers that are worth nothing more.
    pub(crate) fn write_once(&self, bytes: &[u8]) {
        // A client that has gone, or takes nothing, misses an answer that it was not waiting for.
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        };
    }

    /// Reads without keeping anything until the client closes.
    pub(crate) async fn read_to_end(mut self) {
        let mut scrap = [0; 1024];
        while matches!(self.read(&mut scrap).await, Ok(count) if count > 0) {}
    }

    /// Tells the client that nothing more will come.
    pub(crate) fn shutdown_write(&self) {
        // Fails when the client has closed already, which is what this asks for.
        let _ = self.as_socket().shutdown(std::net::Shutdown::Write);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

/// The socket given to the dispatcher.
pub(crate) struct Stream {
    socket: Socket,
    connection: Rc<Connection>,
    /// Set once an answer has been given in the dispatcher's stead: all further input is thrown away.
    refused: bool,
}

impl Stream {
    pub(crate) fn new(socket: Socket, connection: Rc<Connection>) -> Self {
        Self { socket, connection, refused: false }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Reads at most what the connection may read now.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let allowance = self.connection.allowance();
        if allowance == 0 {
            self.connection.throttle();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if buffer.remaining() <= allowance {
            ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        } else {
            let mut limited = ReadBuf::new(buffer.initialize_unfilled_to(allowance));
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut limited))?;
            let count = limited.filled().len();
            buffer.advance(count);
        }
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.connection.bytes_read(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Answers in the dispatcher's stead. The client may still be sending, and closing now would reset the connection
    /// before it has read the answer.
    fn refuse(&mut self, answer: &[u8], reason: Closed) {
        self.connection.server.statistics.closed(reason);
        self.socket.write_once(answer);
        self.socket.shutdown_write();
        self.connection.begin_closing();
        self.refused = true;
    }

    /// Reads without keeping anything until the client closes, which the sweep bounds in time.
    fn discard(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(self.read(cx, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return this.discard(cx, buffer);
        }
        if this.connection.head_is_too_large() {
            this.refuse(HEAD_TOO_LARGE, Closed::HeadTooLarge);
            return this.discard(cx, buffer);
        }
        let polled = this.read(cx, buffer);
        match this.connection.pending_order() {
            Some(Order::CloseIdle) => {
                if polled.is_pending() && !this.socket.has_input() {
                    // An empty read is the end of input for the dispatcher, which then closes.
                    return Poll::Ready(Ok(()));
                }
                this.connection.forget_order();
            }
            Some(Order::HeadLate) if this.connection.stage.get() == Stage::Head => {
                this.refuse(REQUEST_TIMEOUT, Closed::HeadLate);
                return this.discard(cx, buffer);
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        match &polled {
            Poll::Pending => this.connection.write_is_blocked(),
            Poll::Ready(_) => this.connection.write_went_on(),
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.connection.pending_order() == Some(Order::Abort) {
            // A reset frees what the kernel would otherwise keep offering to a client that does not read.
            let _ = self.socket.as_socket().set_linger(Some(Duration::ZERO));
        }
    }
}
