//! A proxy that knows which connections are subscriptions, and treats them differently.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// Passes everything on between workers and one Redis.
pub(crate) struct SubscriberProxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_black_hole: AtomicBool,
    /// Answers to commands wait while this is set; messages pass.
    are_replies_held: Mutex<bool>,
    replies_are_free: Condvar,
    /// The server's ends of the subscriptions.
    subscriptions: Mutex<Vec<TcpStream>>,
}

impl SubscriberProxy {
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) else { continue };
                connect(&client, &server, &state);
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on nothing passes on subscriptions, old and new, while their connections stay open.
    pub(crate) fn black_hole_subscriptions(&self) {
        self.state.is_black_hole.store(true, Ordering::SeqCst);
    }

    /// Ends the black hole; connections that lost something stay silent.
    pub(crate) fn heal(&self) {
        self.state.is_black_hole.store(false, Ordering::SeqCst);
    }

    /// Keeps answers to commands on their way while `action` runs.
    pub(crate) fn hold_replies(&self, action: impl FnOnce()) {
        *self.state.are_replies_held.lock().unwrap() = true;
        action();
        *self.state.are_replies_held.lock().unwrap() = false;
        self.state.replies_are_free.notify_all();
    }

    /// Makes the server forget all subscriptions without a word to the subscribers' connections themselves.
    pub(crate) fn unsubscribe_behind_their_backs(&self) {
        for mut server in self.state.subscriptions.lock().unwrap().drain(..) {
            let _ = server.write_all(b"*1\r\n$11\r\nUNSUBSCRIBE\r\n");
        }
    }
}

fn connect(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    let is_subscription = Arc::new(AtomicBool::new(false));
    for is_request in [true, false] {
        let (from, to) = if is_request { (client, server) } else { (server, client) };
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (state, is_subscription) = (Arc::clone(state), Arc::clone(&is_subscription));
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            let mut is_dead = false;
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let bytes = &buffer[..length];
                if is_request && bytes.windows(9).any(|word| word.eq_ignore_ascii_case(b"SUBSCRIBE")) {
                    is_subscription.store(true, Ordering::SeqCst);
                    state.subscriptions.lock().unwrap().push(to.try_clone().unwrap());
                }
                // What was lost once leaves a hole that no later byte may follow.
                is_dead |= is_subscription.load(Ordering::SeqCst) && state.is_black_hole.load(Ordering::SeqCst);
                if !is_request && !is_subscription.load(Ordering::SeqCst) {
                    let held = state.are_replies_held.lock().unwrap();
                    drop(state.replies_are_free.wait_while(held, |held| *held).unwrap());
                }
                if !is_dead && to.write_all(bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
