//! What goes wrong in a chaos run: drawn from a seed, done to processes and their network.
//!
//! A round begins one to three faults, which overlap, and undoes each when its time is over; or it stops or cuts off one
//! leader after the other.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use kontiki::wire::etcdserverpb as pb;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    cluster::{Cluster, Contact},
    net::{Line, Net},
};

/// How long a fault is: up to several election timeouts and a lease's time.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(6);

/// Which way a line is cut, as its victim sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Both,
    In,
    Out,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// `kill -9`, and a restart.
    Kill,
    /// `SIGSTOP`, and `SIGCONT`.
    Pause,
    /// The victims on one side, the other members on the other.
    Isolate(Way),
    /// Only the line between the first victim and the next member.
    Line(Way),
    /// Clients don't get through to the victims.
    Clients(Way),
    /// What the victims send is late or lost.
    Slow(Line),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Pause => "pause",
            Self::Isolate(Way::Both) => "partition",
            Self::Isolate(Way::In) => "partition, deaf",
            Self::Isolate(Way::Out) => "partition, mute",
            Self::Line(Way::Both) => "line cut",
            Self::Line(Way::In | Way::Out) => "line cut one way",
            Self::Clients(_) => "clients cut off",
            Self::Slow(_) => "slow line",
        }
    }
}

/// A fault with whom it hits and for how long.
#[derive(Clone, Debug)]
struct Strike {
    kind: Kind,
    victims: Vec<usize>,
    leader: bool,
    span: Duration,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = if self.leader { " (leader)" } else { "" };
        write!(f, "{} of {:?}{leader} for {:.1?}", self.kind.name(), self.victims, self.span)?;
        if let Kind::Slow(line) = self.kind { write!(f, ": {line:?}") } else { Ok(()) }
    }
}

/// Who does it all.
pub struct Nemesis {
    rng: StdRng,
    net: Option<Arc<Net>>,
    members: usize,
    /// How long a fault may be.
    span_max: Duration,
    began: Instant,
    /// How often each fault was.
    pub counts: BTreeMap<&'static str, usize>,
    /// How often it hit the leader of the moment.
    pub leaders: usize,
}

/// Who leads, as the member in the newest term says; none if nobody answers or knows.
async fn leader(contacts: &[Contact]) -> Option<usize> {
    const PATIENCE: Duration = Duration::from_millis(300);
    let ask = |contact: &Contact| {
        let mut client = contact.maintenance();
        async move { timeout(PATIENCE, client.status(pb::StatusRequest {})).await.ok()?.ok() }
    };
    let answers = futures_util::future::join_all(contacts.iter().map(ask)).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.map(|a| a.into_inner())).collect();
    let newest = answers.iter().flatten().max_by_key(|answer| answer.raft_term)?;
    let id = |answer: &pb::StatusResponse| answer.header.as_ref().map_or(0, |header| header.member_id);
    answers.iter().position(|answer| answer.as_ref().is_some_and(|answer| id(answer) == newest.leader))
}

impl Nemesis {
    pub fn new(seed: u64, net: Option<Arc<Net>>, members: usize, span_max: Duration) -> Self {
        let (rng, began) = (StdRng::seed_from_u64(seed), Instant::now());
        Self {
            rng,
            net,
            members,
            span_max: span_max.min(LONGEST),
            began,
            counts: BTreeMap::new(),
            leaders: 0,
        }
    }

    fn way(&mut self) -> Way {
        *[Way::Both, Way::Both, Way::In, Way::Out].choose(&mut self.rng).expect("there are some")
    }

    fn kind(&mut self) -> Kind {
        let all = if self.net.is_some() { 12 } else { 5 };
        match self.rng.random_range(0..all) {
            0..3 => Kind::Kill,
            3..5 => Kind::Pause,
            5..8 => Kind::Isolate(self.way()),
            8 => Kind::Line(self.way()),
            9 => Kind::Clients(self.way()),
            _ => Kind::Slow(Line {
                delay_ms: self.rng.random_range(10..300),
                loss_percent: self.rng.random_range(0..25),
                kbit: self.rng.random_range(30..400),
            }),
        }
    }

    /// Whom a fault hits: the leader every third time, else one as often as several.
    async fn draw(&mut self, contacts: &[Contact]) -> Strike {
        let kind = self.kind();
        // Drawn in any case, so that what follows does not depend on the cluster.
        let mut victims: Vec<usize> = (0..self.members).collect();
        victims.shuffle(&mut self.rng);
        let several = self.rng.random_range(1..=self.members);
        victims.truncate(if self.rng.random_bool(0.5) { 1 } else { several });
        let at_leader = self.rng.random_bool(0.35);
        let span = self.rng.random_range(SHORTEST..self.span_max);
        let leader = leader(contacts).await;
        if let (true, Some(leader)) = (at_leader, leader) {
            victims = vec![leader];
        }
        let leader = leader.is_some_and(|leader| victims.contains(&leader));
        Strike { kind, victims, leader, span }
    }

    /// The lines that a fault cuts.
    fn lines(&self, strike: &Strike) -> Vec<(usize, usize)> {
        let first = strike.victims[0];
        let (others, way): (Vec<usize>, Way) = match strike.kind {
            Kind::Isolate(way) => {
                ((0..self.members).filter(|other| !strike.victims.contains(other)).collect(), way)
            }
            Kind::Line(way) => (vec![(first + 1) % self.members], way),
            Kind::Clients(way) => (vec![self.members], way),
            Kind::Kill | Kind::Pause | Kind::Slow(_) => return Vec::new(),
        };
        let victims =
            if matches!(strike.kind, Kind::Line(_)) { &strike.victims[..1] } else { &strike.victims };
        let mut lines = Vec::new();
        for victim in victims {
            for other in others.iter().filter(|other| *other != victim) {
                lines.extend((way != Way::In).then_some((*victim, *other)));
                lines.extend((way != Way::Out).then_some((*other, *victim)));
            }
        }
        lines
    }

    async fn begin(&mut self, cluster: &mut Cluster, strike: &Strike) {
        println!("{:8.2?} {strike}", self.began.elapsed());
        *self.counts.entry(strike.kind.name()).or_default() += 1;
        self.leaders += usize::from(strike.leader);
        match strike.kind {
            Kind::Kill => {
                for victim in &strike.victims {
                    cluster.kill(*victim).await;
                }
            }
            Kind::Pause => strike.victims.iter().for_each(|victim| cluster.pause(*victim)),
            Kind::Isolate(_) | Kind::Line(_) | Kind::Clients(_) => {
                if let Some(net) = &self.net {
                    self.lines(strike).into_iter().for_each(|(from, to)| net.cut(from, to));
                }
            }
            Kind::Slow(line) => {
                if let Some(net) = &self.net {
                    strike.victims.iter().for_each(|victim| net.slow(*victim, &line));
                }
            }
        }
    }

    fn undo(&self, cluster: &mut Cluster, strike: &Strike) {
        let all: Vec<usize> = (0..self.members).collect();
        match strike.kind {
            Kind::Kill => {
                for victim in &strike.victims {
                    // Two faults may have killed it.
                    if !cluster.runs(*victim) {
                        cluster.start(*victim, &all, &[]);
                    }
                }
            }
            Kind::Pause => strike.victims.iter().for_each(|victim| cluster.resume(*victim)),
            Kind::Isolate(_) | Kind::Line(_) | Kind::Clients(_) => {
                if let Some(net) = &self.net {
                    self.lines(strike).into_iter().for_each(|(from, to)| net.mend(from, to));
                }
            }
            Kind::Slow(_) => {
                if let Some(net) = &self.net {
                    net.fast();
                }
            }
        }
    }

    /// The leader of the moment is stopped or cut off for longer than an election takes, then the next, and the next.
    async fn leaders_in_turn(&mut self, cluster: &mut Cluster, contacts: &[Contact]) {
        let cut = self.net.is_some() && self.rng.random_bool(0.4);
        let kind = if cut { Kind::Isolate(Way::Both) } else { Kind::Pause };
        for _ in 0..self.rng.random_range(2..5) {
            let span = Duration::from_millis(self.rng.random_range(800..2_800)).min(self.span_max);
            let between = Duration::from_millis(self.rng.random_range(100..700));
            if let Some(leader) = leader(contacts).await {
                let strike = Strike { kind, victims: vec![leader], leader: true, span };
                self.begin(cluster, &strike).await;
                sleep(span).await;
                self.undo(cluster, &strike);
            }
            sleep(between).await;
        }
    }

    /// One to three faults at once, or one at each leader in turn; then a pause, in which all is well or nearly.
    pub async fn round(&mut self, cluster: &mut Cluster, contacts: &[Contact]) {
        if self.rng.random_bool(0.3) {
            return self.leaders_in_turn(cluster, contacts).await;
        }
        let number = *[1, 1, 1, 2, 2, 3].choose(&mut self.rng).expect("there are some");
        let mut under_way = Vec::new();
        for _ in 0..number {
            let strike = self.draw(contacts).await;
            self.begin(cluster, &strike).await;
            under_way.push((Instant::now() + strike.span, strike));
            sleep(Duration::from_millis(self.rng.random_range(0..500))).await;
        }
        under_way.sort_by_key(|(end, _)| *end);
        for (end, strike) in under_way {
            sleep_until(end).await;
            self.undo(cluster, &strike);
        }
        let long = self.rng.random_bool(0.2);
        let calm = if long { 2_000..6_000 } else { 0..1_500 };
        sleep(Duration::from_millis(self.rng.random_range(calm))).await;
    }
}
