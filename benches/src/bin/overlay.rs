//! What the way between pods of two machines costs: throughput of one TCP stream and the time of a round trip, through
//! our tunnel, beside tunnels made by hand and a plain route. All hosts are namespaces of this machine, and everything
//! runs on one core: the figures are the sum of the work of both ends and all hops, and only ratios say something. On
//! several cores the ratios would follow from what the kernel's scheduler makes of each run. The hosts are switched, not routed: a
//! switch hands on what is larger than a packet in one piece, as links do whose hardware cuts and joins, where a router
//! that is a namespace cuts it in software. Runs as root; takes a minute.
//!
//! Made by hand are: the same path without service rules and connection tracking (`veth`, route, VXLAN); the same with a
//! bridge that has the pods' and the tunnel's links as its ports, as most guides have it; a VXLAN link that ends in the
//! pods' namespaces themselves, which no cluster could have; and `veth` with routes alone. One more is the first again with
//! the one rule that lets pods reach the outside: it makes the kernel track connections, as anything does that translates
//! addresses.

use anyhow::{Context, Result, ensure};
use minik8s_benches::{Table, Timings, show};
use minik8s_core::network::{NetworkPlugin, Peer, PodAttachment};
use minik8s_core::testkit::hosts::{Hosts, NEEDS};
use minik8s_core::testkit::inside::NetNamespace;
use minik8s_net::{BridgeConfig, BridgeNetwork, OverlayConfig};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each way is measured so often, one way after the other in every round.
const ROUNDS: usize = 25;
const STREAM: Duration = Duration::from_millis(300);
const TRIPS: usize = 2_000;
const CHUNK: usize = 1 << 20;

/// What pods need to reach the outside, and no more.
const MASQUERADE: &str = "nft 'add table ip hand; add chain ip hand out { type nat hook postrouting priority srcnat; };
    add rule ip hand out ip saddr 10.79.0.0/16 ip daddr != 10.79.0.0/16 masquerade'";

/// A pod, or what stands for one.
struct Pod(NetNamespace);

/// A way from one pod to another.
struct Way {
    name: &'static str,
    from: NetNamespace,
    to: NetNamespace,
    address: IpAddr,
}

/// What was seen of a way.
#[derive(Default)]
struct Seen {
    gigabits: Vec<f64>,
    trips: Vec<Duration>,
}

fn main() -> Result<()> {
    for need in NEEDS {
        if let Some(missing) = need.missing() {
            anyhow::bail!("hosts on this machine: {missing}");
        }
    }
    // Whatever threads and programs come of this one stay there too.
    let mut last = CpuSet::new();
    last.set(std::thread::available_parallelism()?.get() - 1)?;
    sched_setaffinity(Pid::from_raw(0), &last)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let hosts = Hosts::shared(6);
    let ours = [pod_of_ours(&hosts, 0).await?, pod_of_ours(&hosts, 1).await?];
    let hand = [made_by_hand(&hosts, 2, 3)?, made_by_hand(&hosts, 3, 2)?];
    let tracked = [made_by_hand(&hosts, 4, 5)?, made_by_hand(&hosts, 5, 4)?];
    for host in [4, 5] {
        sh(&hosts[host].network(), MASQUERADE.to_owned())?;
    }
    let way =
        |name, pods: [&Pod; 2], address: IpAddr| Way { name, from: pods[0].0.again(), to: pods[1].0.again(), address };
    let [first, second] = [[&ours[0].pod, &ours[1].pod], [&hand[0], &hand[1]]];
    let ways = [
        way("VXLAN by hand: veth, route, tunnel", second, Ipv4Addr::new(10, 79, 3, 2).into()),
        way("minik8s", first, ours[1].ip),
        way("VXLAN by hand, masquerading", [&tracked[0], &tracked[1]], Ipv4Addr::new(10, 79, 5, 2).into()),
        way("VXLAN by hand: veth, bridge, tunnel", second, Ipv4Addr::new(10, 82, 0, 3).into()),
        way("VXLAN by hand, within the pods", second, Ipv4Addr::new(10, 80, 0, 3).into()),
        way("veth and route, no tunnel", second, Ipv4Addr::new(10, 81, 3, 2).into()),
    ];
    let mut seen: Vec<Seen> = ways.iter().map(|_| Seen::default()).collect();
    for round in 0..=ROUNDS {
        for (way, seen) in ways.iter().zip(&mut seen) {
            let (rate, trip) = (stream(way).context(way.name)?, trips(way).context(way.name)?);
            // The first warms up.
            if round > 0 {
                seen.gigabits.push(rate);
                seen.trips.push(trip);
            }
        }
    }
    report(&ways, &seen);
    Ok(())
}

fn report(ways: &[Way], seen: &[Seen]) {
    let mut table = Table::new(["way", "Gbit/s", "of the first", "round trip", "of the first"]);
    for (way, one) in ways.iter().zip(seen) {
        let rates: Vec<f64> = one.gigabits.iter().zip(&seen[0].gigabits).map(|(a, floor)| a / floor).collect();
        let seconds = |all: &[Duration]| all.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        let (trips, floor) = (seconds(&one.trips), seconds(&seen[0].trips));
        let ratios: Vec<f64> = trips.iter().zip(&floor).map(|(a, floor)| a / floor).collect();
        table.row([
            way.name.to_owned(),
            format!("{:.2}", median(&one.gigabits)),
            format!("{:.3}×", median(&rates)),
            show(Duration::from_secs_f64(median(&trips))),
            format!("{:.3}×", median(&ratios)),
        ]);
    }
    table.print(&format!(
        "What does the way between pods of two machines cost? Medians of {ROUNDS} rounds, ratios taken within each round."
    ));
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// One stream for a while: how many gigabits in a second arrive.
fn stream(way: &Way) -> Result<f64> {
    let (listener, address) = listen(way)?;
    let reader = std::thread::spawn(move || -> std::io::Result<(usize, Duration)> {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total, start) = (vec![0; CHUNK], 0, Instant::now());
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((total, start.elapsed())),
                n => total += n,
            }
        }
    });
    within(&way.from, move || {
        let mut stream = TcpStream::connect(address)?;
        let (chunk, start) = (vec![7; CHUNK], Instant::now());
        while start.elapsed() < STREAM {
            stream.write_all(&chunk)?;
        }
        Ok(())
    })?;
    let (bytes, took) = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    #[allow(clippy::cast_precision_loss)]
    Ok(bytes as f64 * 8.0 / 1e9 / took.as_secs_f64())
}

/// One byte there and back, many times: the median.
fn trips(way: &Way) -> Result<Duration> {
    let (listener, address) = listen(way)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let timings = within(&way.from, move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let (mut timings, mut byte) = (Timings::default(), [1]);
        for _ in 0..TRIPS {
            let start = Instant::now();
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            timings.add(start.elapsed());
        }
        Ok(timings)
    })?;
    echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    Ok(timings.percentile(0.5))
}

fn listen(way: &Way) -> Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::new(way.address, 0);
    let listener = within(&way.to, move || TcpListener::bind(address))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Runs something on a thread that is inside.
fn within<T: Send + 'static>(
    namespace: &NetNamespace,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = namespace.again();
    let run = move || {
        namespace.enter();
        work()
    };
    let done = std::thread::spawn(run).join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    Ok(done?)
}

/// A pod on a network of ours, and the thread that this lives on.
struct Ours {
    pod: Pod,
    ip: IpAddr,
    _inside: minik8s_core::testkit::inside::Inside,
}

async fn pod_of_ours(hosts: &Hosts, index: usize) -> Result<Ours> {
    let range = |index: usize| format!("10.77.{index}.0/24").parse::<ipnet::Ipv4Net>();
    let (host, other) = (&hosts[index], &hosts[1 - index]);
    let config = BridgeConfig {
        node: host.name(),
        pod_cidr: range(index)?,
        cluster_cidr: "10.77.0.0/16".parse()?,
        service_cidr: "10.78.0.0/16".parse()?,
        dns_port: None,
        // As for nodes of different subnets.
        overlay: Some(OverlayConfig { direct: false, ..OverlayConfig::new(host.address()) }),
        ..BridgeConfig::new(host.data().join("network"))
    };
    let peer = Peer { node: other.name(), address: other.address().into(), pod_cidr: range(1 - index)?.into() };
    let pod = fresh_namespace()?;
    let netns = format!("/proc/self/fd/{}", pod.file().as_raw_fd()).into();
    let request = PodAttachment { id: "pod".to_owned(), name: "pod".to_owned(), netns, ..PodAttachment::default() };
    let inside = host.network().runtime();
    let attached = inside.run(async move {
        let network = Arc::new(BridgeNetwork::new(config)?);
        network.setup().await?;
        network.sync_peers(&[peer]).await?;
        network.attach(&request).await
    });
    let ip = attached.await?.ips.first().copied().context("the pod has no address")?;
    Ok(Ours { pod: Pod(pod), ip, _inside: inside })
}

/// A namespace on a host with all the other ways to that on another: 10.79 behind a tunnel of the host, 10.80 on a tunnel
/// of its own, 10.81 without any, 10.82 on a bridge with a tunnel.
fn made_by_hand(hosts: &Hosts, index: usize, other: usize) -> Result<Pod> {
    let pod = fresh_namespace()?;
    let (here, there) = (hosts[index].address(), hosts[other].address());
    let place = format!("/proc/{}/fd/{}", std::process::id(), pod.file().as_raw_fd());
    let tunnel = format!("dstport 4790 local {here} remote {there} nolearning noudpcsum");
    let on_host = format!(
        "echo 1 >/proc/sys/net/ipv4/ip_forward
         ip link add v0 mtu 1450 type veth peer name eth0 mtu 1450 netns {place}
         ip link set v0 up
         ip link add vx0 mtu 1450 type vxlan id 42 {tunnel}
         ip link set vx0 up
         for link in v0 vx0; do echo 1 >/proc/sys/net/ipv4/conf/$link/proxy_arp; done
         for net in 79 81; do ip route add 10.$net.{index}.2 dev v0; done
         ip addr add 10.79.{index}.1/32 dev vx0
         ip route add 10.79.{other}.0/24 dev vx0
         ip route add 10.81.{other}.0/24 via {there}
         ip link add vy0 mtu 1450 type vxlan id 43 {tunnel}
         ip link set vy0 netns {place}
         ip link add br0 mtu 1450 type bridge
         ip link set br0 up
         ip link add vz0 mtu 1450 master br0 type vxlan id 44 {tunnel}
         ip link set vz0 up
         ip link add v1 mtu 1450 master br0 type veth peer name eth1 mtu 1450 netns {place}
         ip link set v1 up"
    );
    let in_pod = format!(
        "for net in 79 81; do ip addr add 10.$net.{index}.2/32 dev eth0; done
         ip link set eth0 up
         for net in 79 81; do ip route add 10.$net.0.0/16 dev eth0 src 10.$net.{index}.2; done
         ip addr add 10.80.0.{index}/24 dev vy0
         ip link set vy0 up
         ip addr add 10.82.0.{index}/24 dev eth1
         ip link set eth1 up"
    );
    sh(&hosts[index].network(), on_host)?;
    sh(&pod, in_pod)?;
    Ok(Pod(pod))
}

fn fresh_namespace() -> Result<NetNamespace> {
    let make = || unshare(CloneFlags::CLONE_NEWNET).map(|()| NetNamespace::current());
    Ok(std::thread::spawn(make).join().map_err(|_| anyhow::anyhow!("a thread panicked"))??)
}

fn sh(namespace: &NetNamespace, script: String) -> Result<()> {
    let shown = script.clone();
    let status = within(namespace, move || Command::new("sh").args(["-ec", &script]).status())?;
    ensure!(status.success(), "{shown}");
    Ok(())
}
