//! A real etcd of a test's own: one member or several, on free ports of the loopback, with data in a temporary
//! directory. Members may be killed, stopped, continued and started again; all are gone when the value is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must say so")]

use super::frozen::stop_still;
use super::wait::until;
use crate::store::{EtcdOptions, EtcdStore, EtcdTls};
use futures::FutureExt;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a member may take until it answers, on a machine that is busy.
const START: Duration = Duration::from_secs(30);

/// An etcd cluster.
pub struct Etcd {
    directory: TempDir,
    members: Vec<Member>,
    /// What clients need where they must show a certificate.
    tls: Option<EtcdTls>,
}

struct Member {
    name: String,
    scheme: &'static str,
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Member {
    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client)
    }

    fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }
}

impl Etcd {
    /// Starts `members` members and waits until they answer.
    ///
    /// # Panics
    /// Where they do not.
    pub async fn start(members: usize) -> Self {
        Self::launch(members, false).await
    }

    /// The same; they show certificates to clients and want to see theirs.
    ///
    /// # Panics
    /// Where they do not answer.
    pub async fn start_with_tls(members: usize) -> Self {
        Self::launch(members, true).await
    }

    async fn launch(members: usize, secure: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("minik8s-etcd-").tempdir().expect("a temporary directory");
        let ports = free_ports(2 * members);
        let scheme = if secure { "https" } else { "http" };
        let member = |i: usize| {
            let (client, peer) = (ports[2 * i], ports[2 * i + 1]);
            Member { name: format!("m{i}"), scheme, client, peer, process: None }
        };
        let tls = secure.then(|| certificates(directory.path()));
        let mut etcd = Self { directory, members: (0..members).map(member).collect(), tls };
        (0..members).for_each(|i| etcd.spawn(i));
        etcd.ready().await;
        etcd
    }

    /// The addresses for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::url).collect()
    }

    /// Options for this etcd under a prefix, with short timeouts.
    pub fn options(&self, prefix: &str) -> EtcdOptions {
        let timeout = Duration::from_secs(5);
        let defaults = EtcdOptions::new(self.endpoints());
        EtcdOptions { prefix: prefix.to_owned(), tls: self.tls.clone(), request_timeout: timeout, ..defaults }
    }

    /// A store under a prefix.
    ///
    /// # Panics
    /// Where etcd does not answer.
    pub async fn store(&self, prefix: &str) -> EtcdStore {
        EtcdStore::connect(self.options(prefix)).await.expect("etcd must answer")
    }

    /// Kills a member, as if its machine lost power.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a killed member on the data it left, and waits until it answers.
    pub async fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.ready().await;
    }

    /// Stops a member's process where it stands: its connections stay, nothing answers.
    pub fn freeze(&self, member: usize) {
        stop_still(self.members[member].process.as_ref().expect("the member must run").id());
    }

    /// Lets a stopped member go on.
    pub fn thaw(&self, member: usize) {
        let process = self.members[member].process.as_ref().expect("the member must run");
        let order = format!("kill -CONT {}", process.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success(), "{order}");
    }

    /// Which member leads.
    ///
    /// # Panics
    /// Where none does within a bound.
    pub async fn leader(&self) -> usize {
        until("etcd has a leader", START, async || {
            for (index, member) in self.members.iter().enumerate().filter(|(_, m)| m.process.is_some()) {
                let Ok(mut client) = etcd_client::Client::connect([member.url()], None).await else { continue };
                let Ok(status) = client.status().await else { continue };
                let own = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
                if own != 0 && own == status.leader() {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    fn spawn(&mut self, index: usize) {
        let all: Vec<_> = self.members.iter().map(|m| format!("{}={}", m.name, m.peer())).collect();
        let member = &self.members[index];
        let log =
            File::options().create(true).append(true).open(self.directory.path().join(format!("{}.log", member.name)));
        let log = log.expect("a log file");
        let data = self.directory.path().join(&member.name);
        let (client, peer) = (member.url(), member.peer());
        let mut command = Command::new("etcd");
        if self.tls.is_some() {
            let file = |name: &str| self.directory.path().join(name);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
            command.arg("--cert-file").arg(file("cert.pem")).arg("--key-file").arg(file("key.pem"));
        }
        let process = command
            .args(["--name", &member.name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            // Elections within a second: leases count in multiples of it, and tests wait for both.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("etcd must start");
        self.members[index].process = Some(process);
    }

    /// Waits until every member that runs answers.
    async fn ready(&self) {
        for member in self.members.iter().filter(|m| m.process.is_some()) {
            let why = Mutex::new(String::new());
            let answers = until("etcd answers", START, async || {
                let alone =
                    EtcdOptions { endpoints: vec![member.url()], compact_every: None, ..self.options("/ready") };
                EtcdStore::connect(alone).await.map_err(|error| *why.lock() = error.to_string()).ok()
            });
            let answers = std::panic::AssertUnwindSafe(answers).catch_unwind().await;
            assert!(answers.is_ok(), "{}\n{}", why.lock(), self.log(member));
        }
    }

    /// The end of what a member printed.
    fn log(&self, member: &Member) -> String {
        let log =
            std::fs::read_to_string(self.directory.path().join(format!("{}.log", member.name))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// A certificate authority, and one certificate that serves for etcd and for its clients; also as files.
fn certificates(directory: &Path) -> EtcdTls {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.distinguished_name.push(DnType::CommonName, "etcd-test-ca");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = authority.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&own, &issuer).expect("a certificate").pem();
    let files = [("ca.pem", &ca), ("cert.pem", &certificate), ("key.pem", &own.serialize_pem())];
    files.iter().for_each(|(name, pem)| std::fs::write(directory.join(name), pem).expect("a file"));
    let identity = Some((certificate.clone().into_bytes(), own.serialize_pem().into_bytes()));
    EtcdTls { ca: Some(ca.into_bytes()), identity }
}

/// Ports that nobody listens on. All are held until the last is found, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|l| l.local_addr().expect("its address").port()).collect()
}
