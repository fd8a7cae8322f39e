//! Network namespaces of a test: a node with a bridge, and pods behind it, IPv4 and IPv6.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A user that is no proxy.
pub(crate) const APP: u32 = 1000;
/// The proxy's user.
pub(crate) const PROXY: u32 = 1337;

/// A network namespace, removed when dropped.
pub(crate) struct Namespace {
    name: String,
}

/// A node and its pods.
pub(crate) struct Network {
    pub(crate) node: Namespace,
    pub(crate) pods: Vec<Namespace>,
}

/// The node's addresses.
pub(crate) const NODE: [&str; 2] = ["198.18.0.1", "fd00:18::1"];

/// The addresses of a pod.
pub(crate) fn pod_addresses(index: usize) -> [String; 2] {
    [format!("198.18.0.{}", index + 2), format!("fd00:18::{}", index + 2)]
}

impl Network {
    /// `None` without root; says so.
    pub(crate) fn new(pods: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let node = Namespace::new("node");
        node.ip("link add br0 type bridge");
        node.ip("link set br0 up");
        node.ip(&format!("addr add {}/24 dev br0", NODE[0]));
        node.ip(&format!("addr add {}/64 dev br0 nodad", NODE[1]));
        let pods = (0..pods).map(|index| node.pod(index)).collect();
        Some(Self { node, pods })
    }
}

impl Namespace {
    fn new(label: &str) -> Self {
        let name = format!("leno-{}-{label}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// A namespace that is connected to this one's bridge.
    fn pod(&self, index: usize) -> Self {
        let pod = Self::new(&format!("pod{index}"));
        self.ip(&format!("link add veth{index} type veth peer name eth0 netns {}", pod.name));
        self.ip(&format!("link set veth{index} master br0 up"));
        pod.ip("link set eth0 up");
        let [v4, v6] = pod_addresses(index);
        pod.ip(&format!("addr add {v4}/24 dev eth0"));
        pod.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
        pod.ip(&format!("route add default via {}", NODE[0]));
        pod.ip(&format!("-6 route add default via {}", NODE[1]));
        pod
    }

    fn ip(&self, arguments: &str) {
        succeed(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' ')));
    }

    /// A command that runs here, as a user.
    pub(crate) fn command(&self, user: u32, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        // A test that is killed takes its processes along.
        if user != 0 {
            command.args([
                "setpriv",
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
                "--pdeathsig=KILL",
            ]);
        }
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs something here, as a user, and gives what it printed, or what went wrong.
    pub(crate) fn run(&self, user: u32, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(user, arguments[0]).args(&arguments[1..]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))),
        }
    }

    /// What a server says that a user connects to, within 5 s.
    pub(crate) fn dial(&self, user: u32, to: &str, port: u16) -> Result<String, String> {
        self.run(user, &["timeout", "5", "bash", "-c", &format!("exec 3<>/dev/tcp/{to}/{port} && cat <&3")])
    }

    /// What a UDP server answers a user, within 5 s.
    pub(crate) fn ask_udp(&self, user: u32, to: &str, port: u16) -> Result<String, String> {
        let script = format!("exec 3<>/dev/udp/{to}/{port} && echo hello >&3 && head -n 1 <&3");
        self.run(user, &["timeout", "5", "bash", "-c", &script])
    }

    /// Runs on a thread of its own that is in this namespace, for good.
    pub(crate) fn enter<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let entry = self.entry();
        thread::spawn(move || {
            entry();
            run()
        })
    }

    /// Moves the calling thread into this namespace.
    pub(crate) fn entry(&self) -> impl Fn() + Send + Sync + 'static {
        let path = PathBuf::from("/run/netns").join(&self.name);
        move || {
            let file = std::fs::File::open(&path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        }
    }

    /// A server here that tells each client who it is and what the client had dialled.
    pub(crate) fn serve(&self, at: &[&str], port: u16, name: &'static str) {
        for address in at {
            let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
            let bound = self.enter(move || listener(address)).join().unwrap();
            thread::spawn(move || {
                for stream in bound.incoming() {
                    let mut stream = stream.unwrap();
                    let socket = socket2::SockRef::from(&stream);
                    let dialled =
                        if address.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
                    let dialled =
                        dialled.ok().and_then(|dialled| dialled.as_socket()).or(stream.local_addr().ok());
                    let said = format!("{name} {}", dialled.unwrap());
                    // A client that is gone already has nothing to say.
                    let _ = stream.write_all(said.as_bytes());
                }
            });
        }
    }

    /// A UDP server here that says what it got.
    pub(crate) fn echo_udp(&self, at: &[&str], port: u16) {
        for address in at {
            let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
            let socket = self.enter(move || UdpSocket::bind(address).unwrap()).join().unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 512];
                loop {
                    let (count, from) = socket.recv_from(&mut bytes).unwrap();
                    socket.send_to(&bytes[..count], from).unwrap();
                }
            });
        }
    }
}

fn listener(address: SocketAddr) -> TcpListener {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A process that ends with the test.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it; what it says on standard error goes to the test's, when it fails.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Tells it to stop, as a kubelet does.
    pub(crate) fn terminate(&self) {
        succeed(Command::new("kill").arg("-TERM").arg(self.0.id().to_string()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until something holds, for 30 s at most; the last answer is the message otherwise.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..300 {
        match holds() {
            Ok(value) => return value,
            Err(why) => last = why,
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("not within 30 s: {what}: {last}");
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("iproute2 is installed (tools/debian.txt)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
