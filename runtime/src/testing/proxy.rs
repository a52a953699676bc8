//! A TCP proxy that fails on demand.

mod door;
mod link;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use door::{Door, Order};

/// One of the two ways in which bytes go through a [`FaultProxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client that connected to the proxy to the server behind it.
    ToServer,
    /// From the server back to the client.
    ToClient,
}

/// A TCP proxy between a client and a server that misbehaves as networks do.
///
/// It listens on a free port of the loopback interface and forwards to one server. Faults apply to
/// connections that are open and to those that come later, until [`restore`](Self::restore) or the
/// opposite call. Bytes are held, never dropped: a connection that survives a fault is intact, as
/// TCP would have it.
///
/// Delays are drawn from a seed that is printed when the proxy starts; `INTERLINE_TEST_SEED` sets
/// it, and so does [`start_seeded`](Self::start_seeded). Each connection draws from a sequence of
/// its own, given by the seed and the order in which connections were made.
///
/// Everything ends when the proxy is dropped.
///
/// # Examples
///
/// ```no_run
/// use interline::testing::{Direction, FaultProxy};
/// use std::time::Duration;
///
/// # async fn example() -> std::io::Result<()> {
/// let proxy = FaultProxy::start("127.0.0.1:5672").await?;
/// let url = format!("amqp://guest:guest@{}/%2f", proxy.address());
///
/// proxy.latency(Duration::from_millis(5), Duration::from_millis(50));
/// proxy.stall(Direction::ToClient, true);
/// proxy.restore().await?;
/// proxy.reset_all().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
    orders: mpsc::Sender<(Order, oneshot::Sender<io::Result<()>>)>,
    door: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy to `target` (`host:port`) on the current runtime, with a seed from
    /// `INTERLINE_TEST_SEED` or else a random one.
    ///
    /// # Errors
    ///
    /// When `target` does not resolve, or `INTERLINE_TEST_SEED` is not a number.
    pub async fn start(target: impl AsRef<str>) -> io::Result<Self> {
        let seed = match std::env::var("INTERLINE_TEST_SEED") {
            Ok(text) => text.parse().map_err(|_| {
                io::Error::other(format!(
                    "INTERLINE_TEST_SEED is '{text}', which is not a number from 0 to {}",
                    u64::MAX
                ))
            })?,
            Err(_) => fastrand::u64(..),
        };
        Self::start_seeded(target, seed).await
    }

    /// [`start`](Self::start) with a seed of the caller's.
    ///
    /// # Errors
    ///
    /// When `target` does not resolve.
    pub async fn start_seeded(target: impl AsRef<str>, seed: u64) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target, seed).await
    }

    /// [`start`](Self::start) that listens on `address`, for a server that tells its clients where to
    /// find it and had to be told before.
    ///
    /// # Errors
    ///
    /// When `target` does not resolve, or `address` is taken.
    pub async fn start_at(
        address: SocketAddr,
        target: impl AsRef<str>,
        seed: u64,
    ) -> io::Result<Self> {
        let target = target.as_ref();
        let resolved = lookup_host(target).await?.next().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{target} resolves to no address"),
            )
        })?;
        let shared = Arc::new(Shared {
            faults: watch::Sender::new(Faults::default()),
            cut: Mutex::new(None),
            links: Mutex::new(HashMap::new()),
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let door = Door::open_at(address)?;
        let address = door.address();
        let (orders, inbox) = mpsc::channel(1);
        let door = tokio::spawn(door.serve(resolved, seed, shared.clone(), inbox));
        eprintln!("fault proxy {address} -> {target}, INTERLINE_TEST_SEED={seed}");
        Ok(Self {
            address,
            seed,
            shared,
            orders,
            door,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The seed of the delays.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Delays what is forwarded, in both directions, by a time between `shortest` and `longest` for
    /// each piece. Order is kept, and so is throughput: pieces travel at the same time.
    pub fn latency(&self, shortest: Duration, longest: Duration) {
        let (low, high) = (shortest.min(longest), shortest.max(longest));
        self.shared
            .faults
            .send_modify(|faults| faults.latency = low..=high);
    }

    /// Resets every open connection (RST, on both sides) and returns how many there were, when they
    /// are gone. Clients may connect again at once.
    pub async fn reset_all(&self) -> usize {
        let links: Vec<_> = self.shared.links().drain().map(|(_, link)| link).collect();
        let count = links.len();
        for link in links {
            // A link that has ended in the meantime no longer listens.
            let _ = link.reset.send(());
            let _ = link.task.await;
        }
        count
    }

    /// Accepts connections and forwards nothing, in either direction; not even the end of a
    /// connection is passed on.
    pub fn black_hole(&self, on: bool) {
        self.shared
            .faults
            .send_modify(|faults| faults.black_hole = on);
    }

    /// Holds what goes in one direction while the other still works.
    pub fn stall(&self, direction: Direction, on: bool) {
        self.shared
            .faults
            .send_modify(|faults| faults.stalled[direction as usize] = on);
    }

    /// Lets `bytes` more bytes pass, counted over all connections and both directions, then resets
    /// every open connection, once: connections made after that are whole.
    pub fn cut_after(&self, bytes: u64) {
        *self.shared.cut() = Some(bytes);
    }

    /// Refuses new connections, as if nobody listened; open ones are left alone. The port stays
    /// reserved.
    ///
    /// # Errors
    ///
    /// When the system does not give the port back.
    pub async fn refuse(&self, on: bool) -> io::Result<()> {
        let order = if on { Order::Close } else { Order::Open };
        let (reply, done) = oneshot::channel();
        let gone = || io::Error::other("the runtime on which the fault proxy started has ended");
        self.orders.send((order, reply)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }

    /// Ends every fault. Connections that were reset stay so.
    ///
    /// # Errors
    ///
    /// As [`refuse`](Self::refuse).
    pub async fn restore(&self) -> io::Result<()> {
        *self.shared.cut() = None;
        self.shared.faults.send_replace(Faults::default());
        self.refuse(false).await
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.links().len()
    }

    /// How many bytes were forwarded in one direction since the start.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes[direction as usize].load(Ordering::Relaxed)
    }

    /// How many bytes were forwarded since the start.
    pub fn total_bytes(&self) -> u64 {
        self.bytes(Direction::ToServer) + self.bytes(Direction::ToClient)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.door.abort();
        for link in self.shared.links().values() {
            link.task.abort();
        }
    }
}

#[derive(Debug)]
struct Faults {
    latency: RangeInclusive<Duration>,
    black_hole: bool,
    stalled: [bool; 2],
}

impl Faults {
    fn holds(&self, direction: Direction) -> bool {
        self.black_hole || self.stalled[direction as usize]
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO..=Duration::ZERO,
            black_hole: false,
            stalled: [false; 2],
        }
    }
}

/// What the proxy and its tasks have in common.
#[derive(Debug)]
struct Shared {
    faults: watch::Sender<Faults>,
    /// How many bytes may still pass before the cut.
    cut: Mutex<Option<u64>>,
    links: Mutex<HashMap<u64, LinkHandle>>,
    bytes: [AtomicU64; 2],
}

#[derive(Debug)]
struct LinkHandle {
    reset: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, HashMap<u64, LinkHandle>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) -> MutexGuard<'_, Option<u64>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `wanted` bytes may pass, and whether the cut comes after them.
    fn admit(&self, wanted: usize) -> (usize, bool) {
        let mut cut = self.cut();
        match *cut {
            Some(left) if left <= wanted as u64 => {
                *cut = None;
                // Not more than `wanted`, so it fits.
                (left as usize, true)
            }
            Some(left) => {
                *cut = Some(left - wanted as u64);
                (wanted, false)
            }
            None => (wanted, false),
        }
    }

    fn reset_links(&self) {
        for (_, link) in self.links().drain() {
            let _ = link.reset.send(());
        }
    }
}

#[cfg(test)]
mod tests;
