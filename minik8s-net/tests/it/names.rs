//! The name server on real sockets: both transports, other servers, what is broken.

use crate::machine::{Machine, NEIGHBOUR, on_machine};
use crate::traffic::udp;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use minik8s_core::network::{NetworkPlugin, PodAttachment, ServiceEntry, ServiceTable};
use minik8s_core::testkit::inside::NetNamespace;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::network::{Bed, Place};
use minik8s_net::{BridgeConfig, BridgeNetwork, HostTable};

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(60);

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) async fn ask_udp(from: NetNamespace, server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = from.run(|| udp((Ipv4Addr::UNSPECIFIED, 0).into())).await.unwrap();
    let question = question(name, kind);
    socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let (length, peer) = timeout(BOUND, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(peer, server);
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    answer
}

async fn ask_tcp(from: NetNamespace, server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = from.run(TcpSocket::new_v4).await.unwrap();
    let mut stream = timeout(BOUND, socket.connect(server)).await.unwrap().unwrap();
    let bytes = question(name, kind).to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(timeout(BOUND, stream.read_u16()).await.unwrap().unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// What the neighbour's name server says to anything: an address, by TCP as well; cut by UDP where the name says so.
fn neighbour_answer(bytes: &[u8], udp: bool) -> Vec<u8> {
    let question = Message::from_vec(bytes).unwrap();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    let query = question.queries[0].clone();
    answer.add_query(query.clone());
    if udp && query.name().to_ascii().starts_with("long.") {
        answer.metadata.truncation = true;
    } else {
        let data = RData::A(A::new(198, 51, 100, 7));
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    }
    answer.to_vec().unwrap()
}

/// A name server at the neighbour, and how often it was asked.
async fn neighbour(machine: &Machine) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let outside = machine.namespace(&Place::Outside);
    let address = SocketAddr::from((NEIGHBOUR, 53));
    let socket: UdpSocket = outside.run(move || udp(address)).await.unwrap();
    let listener: TcpListener = outside
        .run(move || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(address).unwrap();
            socket.listen(8).unwrap()
        })
        .await;
    let counter = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 2000];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::Relaxed);
            // A forgery comes first.
            let mut forged = neighbour_answer(&buffer[..length], true);
            forged[0] ^= 0xff;
            socket.send_to(&forged, peer).await.unwrap();
            socket.send_to(&neighbour_answer(&buffer[..length], true), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = neighbour_answer(&bytes, false);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    asked
}

/// A network whose other name servers are one that is dead and the neighbour.
async fn network(machine: &Machine) -> (Arc<BridgeNetwork>, SocketAddr) {
    let dead = SocketAddr::from((NEIGHBOUR, 54));
    let upstreams = Some(vec![dead, (NEIGHBOUR, 53).into()]);
    let network = machine.open(BridgeConfig { upstreams, ..machine.config() });
    network.setup().await.unwrap();
    let far = ServiceEntry {
        namespace: "d".into(),
        name: "far".into(),
        external_name: Some("long.example.org".into()),
        ..ServiceEntry::default()
    };
    let services = [(("d".to_owned(), "far".to_owned()), Arc::new(far))].into();
    network.sync_services(Arc::new(ServiceTable { services })).await.unwrap();
    let address = network.dns_address().await.unwrap();
    (network, address)
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn other_names_are_asked_of_other_servers_and_none_of_ours_leak() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let asked = neighbour(&machine).await;
        let (network, server) = network(&machine).await;
        let pod = Place::Pod(machine.place().await);
        let request =
            minik8s_core::network::PodAttachment { id: "p".into(), netns: machine_path(&pod), ..Default::default() };
        network.attach(&request).await.unwrap();
        let udp = async |name: &str| ask_udp(machine.namespace(&pod), server, name, RecordType::A).await;
        let tcp = async |name: &str| ask_tcp(machine.namespace(&pod), server, name, RecordType::A).await;
        assert_eq!(addresses(&udp("example.org.").await), ["198.51.100.7"]);
        assert!(udp("long.example.org.").await.metadata.truncation, "the client is told to come back by TCP");
        assert_eq!(addresses(&tcp("long.example.org.").await), ["198.51.100.7"]);
        // An alias comes with what it stands for.
        assert_eq!(addresses(&tcp("far.d.svc.cluster.local.").await), ["long.example.org.", "198.51.100.7"]);
        let before = asked.load(Ordering::Relaxed);
        assert_eq!(udp("example.org.d.svc.cluster.local.").await.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(asked.load(Ordering::Relaxed), before);
        network.teardown().await.unwrap();
        assert!(network.dns_address().await.is_none());
    });
}

#[test]
fn names_of_the_world_are_taken_from_nobody_but_the_pods_of_who_takes_them() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let _asked = neighbour(&machine).await;
        let (network, server) = network(&machine).await;
        let mut table = HostTable { shared: vec!["example".into()], here: true, ..HostTable::default() };
        table.add("github.com", "evil");
        table.add("shop.example", "evil");
        table.add("a.b.com", "default");
        network.config().hosts.set(table);
        let pod = async |namespace: &str| {
            let netns = machine.place().await;
            let (id, namespace) = (namespace.to_owned(), namespace.to_owned());
            let request = PodAttachment { id, namespace, netns: netns.clone(), ..PodAttachment::default() };
            network.attach(&request).await.unwrap();
            Place::Pod(netns)
        };
        let (good, evil) = (pod("good").await, pod("evil").await);
        let ask = async |from: &Place, name: &str| {
            let answer = ask_udp(machine.namespace(from), server, name, RecordType::A).await;
            addresses(&answer).join(" ")
        };
        let (gateway, world) = ("10.77.0.1", "198.51.100.7");
        assert_eq!(
            (ask(&good, "github.com.").await.as_str(), ask(&evil, "github.com.").await.as_str()),
            (world, gateway)
        );
        assert_eq!(ask(&good, "shop.example.").await, gateway);
        assert_eq!(
            (ask(&good, "a.b.com.").await.as_str(), ask(&Place::Host, "a.b.com.").await.as_str()),
            (world, gateway)
        );
        network.teardown().await.unwrap();
    });
}

fn machine_path(place: &Place) -> std::path::PathBuf {
    match place {
        Place::Pod(path) => path.clone(),
        _ => unreachable!("not a pod"),
    }
}

#[test]
fn broken_questions_do_not_stop_the_server() {
    if !need::met(&[Need::Root, Need::Program("ip"), Need::Program("nft")]) {
        return;
    }
    on_machine(async |machine| {
        let (network, server) = network(&machine).await;
        let host = machine.namespace(&Place::Host);
        let socket = udp((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        for length in 0..64 {
            socket.send_to(&vec![0x7f; length], server).await.unwrap();
        }
        let mut stream = TcpSocket::new_v4().unwrap().connect(server).await.unwrap();
        stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
        let kind = RecordType::CNAME;
        let answer = ask_udp(host.again(), server, "far.d.svc.cluster.local.", kind).await;
        assert_eq!(addresses(&answer), ["long.example.org."]);
        let answer = ask_tcp(host, server, "far.d.svc.cluster.local.", kind).await;
        assert_eq!(addresses(&answer), ["long.example.org."]);
        network.teardown().await.unwrap();
    });
}
