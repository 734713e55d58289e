//! A network of our own: a namespace for each member, joined by a bridge in a namespace for the clients, made with
//! iproute2 and gone with its value.
//!
//! ```text
//!  hub: clients, bridge 10.99.0.254 ──┬── m0 10.99.0.1
//!                                     ├── m1 10.99.0.2      cut(1, 2): m1 sends what is for m2 to a MAC address
//!                                     └── m2 10.99.0.3      that nobody has; packets vanish, one way, at once
//! ```
//!
//! All know each other's MAC addresses by heart, so a lost packet is never one of ARP. A bad line is `tc`'s `netem`, with
//! delay, jitter and loss, where the kernel has it. Else it is `htb`: a thin line whose short queue delays what waits and
//! drops what does not fit, beside a class that drops all it is given, and lots drawn by a filter in BPF.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::Path,
    process::{self, Command},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// A MAC address that nobody has.
const NOWHERE: &str = "02:00:00:00:ff:ff";

/// The namespaces.
pub struct Net {
    prefix: String,
    members: usize,
    /// Whether the kernel has `netem`.
    pub netem: bool,
}

/// Runs a command; what it said if it failed. Blanks part arguments, but for those in quotes.
fn run(program: &str, line: &str) -> Result<(), String> {
    let quoted = |(number, part): (usize, &str)| match number % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    };
    let arguments: Vec<String> = line.split('"').enumerate().flat_map(quoted).collect();
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn address(at: usize) -> String {
    format!("10.99.0.{}", at + 1)
}

fn mac(at: usize) -> String {
    format!("02:00:00:00:00:{:02x}", at + 1)
}

/// Takes away what a killed run has left.
fn sweep() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("kontiki-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = run("ip", &format!("netns del {name}"));
        }
    }
}

impl Net {
    /// Makes it, or says why that is not possible: it takes root, iproute2, and a kernel that lets us.
    pub fn new(slot: u16, members: usize) -> Result<Self, String> {
        sweep();
        let mut net = Self { prefix: format!("kontiki-{}-{slot}", process::id()), members, netem: false };
        net.build()?;
        net.netem = net.tc(0, &["qdisc add dev eth0 root netem delay 1ms".to_owned()]).is_ok();
        net.fast();
        // Better now than in the middle of a run.
        net.tc(0, &net.how(&Line { delay_ms: 1, loss_percent: 1, kbit: 1_000 }))?;
        net.fast();
        Ok(net)
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.hub();
        run("ip", &format!("netns add {hub}"))?;
        run("ip", &format!("-n {hub} link set lo up"))?;
        run("ip", &format!("-n {hub} link add eth0 address {} type bridge", mac(self.members)))?;
        run("ip", &format!("-n {hub} addr add {}/24 dev eth0", address(self.members)))?;
        run("ip", &format!("-n {hub} link set eth0 up"))?;
        for at in 0..self.members {
            let space = self.space(at);
            run("ip", &format!("netns add {space}"))?;
            run("ip", &format!("-n {space} link set lo up"))?;
            let pair = format!("type veth peer name eth0 address {} netns {space}", mac(at));
            run("ip", &format!("-n {hub} link add v{at} {pair}"))?;
            run("ip", &format!("-n {hub} link set v{at} master eth0 up"))?;
            run("ip", &format!("-n {space} addr add {}/24 dev eth0", address(at)))?;
            run("ip", &format!("-n {space} link set eth0 up"))?;
        }
        for from in 0..=self.members {
            for to in (0..=self.members).filter(|to| *to != from) {
                self.send(from, to, &mac(to))?;
            }
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// The name of a member's namespace; of the clients' one behind the last member.
    pub fn space(&self, at: usize) -> String {
        if at == self.members { self.hub() } else { format!("{}-m{at}", self.prefix) }
    }

    /// Where a member listens for clients and for peers.
    pub fn urls(&self, at: usize) -> (String, String) {
        (format!("http://{}:2379", address(at)), format!("http://{}:2380", address(at)))
    }

    /// Moves the calling thread to the clients' place.
    pub fn enter(&self) -> io::Result<()> {
        let hub = File::open(Path::new(NAMES).join(self.hub()))?;
        Ok(move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    fn send(&self, from: usize, to: usize, mac: &str) -> Result<(), String> {
        let (space, to) = (self.space(from), address(to));
        run("ip", &format!("-n {space} neigh replace {to} lladdr {mac} dev eth0 nud permanent"))
    }

    /// From now on, nothing that `from` sends reaches `to`. The clients count as one behind the last member.
    pub fn cut(&self, from: usize, to: usize) {
        self.send(from, to, NOWHERE).expect("a line can be cut");
    }

    /// Mends what was cut between `from` and `to`, one way.
    pub fn mend(&self, from: usize, to: usize) {
        self.send(from, to, &mac(to)).expect("a line can be mended");
    }

    fn tc(&self, at: usize, commands: &[String]) -> Result<(), String> {
        commands.iter().try_for_each(|command| run("tc", &format!("-n {} {command}", self.space(at))))
    }

    fn how(&self, line: &Line) -> Vec<String> {
        if self.netem { line.netem() } else { line.htb() }
    }

    /// Makes what a member sends late, and loses some of it.
    pub fn slow(&self, at: usize, line: &Line) {
        // It may be slow already.
        let _ = self.tc(at, &["qdisc del dev eth0 root".to_owned()]);
        self.tc(at, &self.how(line)).expect("the queue can be set");
    }

    /// All lines are fast again.
    pub fn fast(&self) {
        for at in 0..self.members {
            // There may be none.
            let _ = self.tc(at, &["qdisc del dev eth0 root".to_owned()]);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for at in 0..=self.members {
            let _ = run("ip", &format!("netns del {}", self.space(at)));
        }
    }
}

/// A bad line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub delay_ms: u32,
    pub loss_percent: u32,
    /// For a kernel without `netem`.
    pub kbit: u32,
}

impl Line {
    fn netem(&self) -> Vec<String> {
        let Self { delay_ms, loss_percent, .. } = self;
        let jitter = delay_ms / 4;
        vec![format!("qdisc add dev eth0 root netem delay {delay_ms}ms {jitter}ms loss {loss_percent}%")]
    }

    fn htb(&self) -> Vec<String> {
        /// A few whole packets must fit.
        const QUEUE_MIN: u32 = 6_000;
        let Self { delay_ms, loss_percent, kbit } = self;
        let queue = (kbit * delay_ms / 8).max(QUEUE_MIN);
        // A random number is loaded; unless it is above the limit, the packet goes to the class that drops.
        let limit = u32::MAX / 100 * loss_percent;
        let lots = format!("4,32 0 0 4294963256,37 0 1 {limit},6 0 0 0,6 0 0 4294967295");
        vec![
            "qdisc add dev eth0 root handle 1: htb default 10".to_owned(),
            format!("class add dev eth0 parent 1: classid 1:10 htb rate {kbit}kbit burst 4k"),
            format!("qdisc add dev eth0 parent 1:10 handle 10: bfifo limit {queue}"),
            "class add dev eth0 parent 1: classid 1:20 htb rate 80kbit".to_owned(),
            "qdisc add dev eth0 parent 1:20 handle 20: bfifo limit 1".to_owned(),
            format!("filter add dev eth0 parent 1: protocol ip prio 1 bpf bytecode {lots:?} flowid 1:20"),
        ]
    }
}
