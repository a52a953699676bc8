//! A small DNS server that answers by a script.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Longer answers go over TCP.
const UDP_BYTES_MAX: usize = 1_232;

/// What the server says about one name.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These records, each with this time to live.
    Records(u32, Vec<RData>),
    /// Nothing of that kind, for this time.
    Nothing(u32),
    /// The name does not exist, for this time.
    NoName(u32),
    /// The server fails.
    Failure,
    /// It says nothing.
    Silence,
}

/// The server; it ends when it is dropped.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Zone>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    says: Mutex<BTreeMap<(String, RecordType), Says>>,
    asked: Mutex<Vec<(String, RecordType)>>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        for _ in 0..100 {
            if let Some(server) = Self::start_at(([127, 0, 0, 1], 0).into()).await {
                return server;
            }
        }
        panic!("no port that is free for both");
    }

    /// `None` where the port is taken.
    pub(crate) async fn start_at(address: SocketAddr) -> Option<Self> {
        let udp = UdpSocket::bind(address).await.ok()?;
        let address = udp.local_addr().ok()?;
        let tcp = TcpListener::bind(address).await.ok()?;
        let zone = Arc::new(Zone::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve_udp(udp, Arc::clone(&zone)));
        serving.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Some(Self {
            address,
            zone,
            _serving: serving,
        })
    }

    /// From now on this is said; of what nothing was said, that there is no such name.
    pub(crate) fn say(&self, name: &str, kind: RecordType, says: Says) {
        let mut all = self
            .zone
            .says
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert((name.to_owned(), kind), says);
    }

    /// How often this was asked.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let asked = self
            .zone
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked
            .iter()
            .filter(|one| one.0 == name && one.1 == kind)
            .count()
    }
}

pub(crate) fn address(text: &str) -> RData {
    match text.parse().expect("an address") {
        std::net::IpAddr::V4(address) => RData::A(A(address)),
        std::net::IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

pub(crate) fn service(priority: u16, port: u16, target: &str) -> RData {
    weighted(priority, 1, port, target)
}

pub(crate) fn weighted(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, name(target)))
}

pub(crate) fn alias(target: &str) -> RData {
    RData::CNAME(CNAME(name(target)))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Option<Message> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let metadata = question.metadata;
        let mut answer = Message::response(metadata.id, metadata.op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let asked = (query.name().to_ascii().to_lowercase(), query.query_type());
        let says = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(asked.clone());
            let says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
            says.get(&asked).cloned().unwrap_or(Says::NoName(1))
        };
        let authority = |ttl: u32| {
            let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 60, 60, 60, ttl);
            Record::from_rdata(name("test."), ttl, RData::SOA(soa))
        };
        match says {
            Says::Silence => return None,
            Says::Records(ttl, records) => {
                let mut owner = query.name().clone();
                for data in records {
                    let record = Record::from_rdata(owner.clone(), ttl, data);
                    if let RData::CNAME(target) = &record.data {
                        owner = target.0.clone();
                    }
                    answer.add_answer(record);
                }
            }
            Says::Nothing(ttl) => {
                answer.add_authority(authority(ttl));
            }
            Says::NoName(ttl) => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(authority(ttl));
            }
            Says::Failure => answer.metadata.response_code = ResponseCode::ServFail,
        }
        Some(answer)
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut bytes = [0; 4_096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            continue;
        };
        let Some(answer) = zone.answer(&bytes[..length]) else {
            continue;
        };
        let mut packet = answer.to_vec().expect("an answer");
        if packet.len() > UDP_BYTES_MAX {
            packet = answer.truncate().to_vec().expect("an answer");
        }
        // Who does not wait any more is none of ours.
        let _ = socket.send_to(&packet, from).await;
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(converse(stream, Arc::clone(&zone)));
        }
    }
}

async fn converse(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = zone.answer(&question) else {
            return;
        };
        let packet = answer.to_vec().expect("an answer");
        let length = u16::try_from(packet.len()).expect("a short answer");
        let framed = [&length.to_be_bytes()[..], &packet].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}
