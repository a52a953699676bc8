//! Where connections come in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::link::{self, Either, first_of};
use super::{LinkHandle, Shared};

const BACKLOG: u32 = 1024;

pub(super) enum Order {
    Open,
    Close,
}

pub(super) type Orders = mpsc::Receiver<(Order, oneshot::Sender<io::Result<()>>)>;

/// A port that stays bound as long as the proxy lives, whether somebody listens or not.
pub(super) struct Door {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// Holds the port while nobody listens.
    reserved: Option<TcpSocket>,
}

impl Door {
    pub(super) fn open_at(address: SocketAddr) -> io::Result<Self> {
        let listener = bind(address)?.listen(BACKLOG)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            reserved: None,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections and orders until the proxy is gone.
    pub(super) async fn serve(
        mut self,
        target: SocketAddr,
        seed: u64,
        shared: Arc<Shared>,
        mut orders: Orders,
    ) {
        let mut number = 0;
        loop {
            match first_of(orders.recv(), self.next_client()).await {
                Either::Left(None) => return,
                Either::Left(Some((order, reply))) => {
                    let done = match order {
                        Order::Open => self.open(),
                        Order::Close => self.close(),
                    };
                    // Whoever gave the order may have stopped waiting.
                    let _ = reply.send(done);
                }
                Either::Right(client) => {
                    admit(client, number, target, seed, &shared);
                    number += 1;
                }
            }
        }
    }

    async fn next_client(&self) -> TcpStream {
        let Some(listener) = &self.listener else {
            return std::future::pending().await;
        };
        loop {
            match listener.accept().await {
                Ok((client, _)) => return client,
                // Out of descriptors, say: the connection waits in the backlog.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            let socket = match self.reserved.take() {
                Some(socket) => socket,
                None => bind(self.address)?,
            };
            self.listener = Some(socket.listen(BACKLOG)?);
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        // Ends the connections of the backlog too.
        if self.listener.take().is_some() {
            self.reserved = Some(bind(self.address)?);
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The connections that are open on this port must not keep it from us.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn admit(client: TcpStream, number: u64, target: SocketAddr, seed: u64, shared: &Arc<Shared>) {
    let (reset, on_reset) = oneshot::channel();
    // Held until the link is in the table, or a link that ends at once would never leave it.
    let mut links = shared.links();
    let run = {
        let shared = shared.clone();
        async move {
            link::run(client, target, seed, number, &shared, on_reset).await;
            shared.links().remove(&number);
        }
    };
    links.insert(
        number,
        LinkHandle {
            reset,
            task: tokio::spawn(run),
        },
    );
}
