//! Which faults come, how often, and what comes together.
//!
//! A run is *broad*, with about half of all kinds, or *narrow*: one to three kinds that come thick and fast. Faults come
//! alone or close upon each other, with clients that press on while they last or without; some wait for a moment of a
//! member and come right behind it.

use super::{MS, SECOND, echo_after};
use crate::{
    host::Micros,
    net::{Address, Link},
    plan::{Fault, Knobs, Moment, Timed, Who},
    rng::Rng,
};

/// Faults of one run: more would only hide each other.
const FAULTS_MAX: usize = 120;

/// Rushes of one run: they cost more than all else.
const RUSHES_MAX: usize = 24;

/// Kinds by weight: a kind's number stands for each of its shares.
const KINDS: u64 = 36;

/// The kinds of members that join.
const GROWTH: [u64; 2] = [28, 29];

/// How a run's faults are.
struct Mood {
    kinds: Vec<u64>,
    /// How far apart they are, about.
    pause: Micros,
    /// How often the next one comes within an election timeout, in a million.
    together: u32,
    /// How often clients press on meanwhile, in a million.
    rush: u32,
    election: Micros,
}

impl Mood {
    fn of(rng: &Rng, knobs: &Knobs) -> Self {
        let election = knobs.tick_ms * knobs.election_ticks * MS;
        let narrow = rng.chance(400_000);
        let kinds: Vec<u64> = if narrow {
            (0..rng.between(1, 3)).map(|_| rng.below(KINDS)).collect()
        } else {
            (0..KINDS).filter(|_| rng.chance(550_000)).collect()
        };
        // Small clusters grow, often.
        let grows = knobs.members < 3 && rng.chance(600_000);
        let kinds = kinds.into_iter().chain(GROWTH.into_iter().filter(|_| grows)).collect();
        let pause = if narrow { (election, 4 * SECOND.max(election)) } else { (200 * MS, 8 * SECOND) };
        Self {
            kinds,
            pause: rng.log_between(pause.0, pause.1),
            together: *rng.pick(&[0, 0, 200_000, 500_000]),
            rush: *rng.pick(&[0, 150_000, 500_000, 900_000]),
            election,
        }
    }

    /// How long something lasts that concerns elections.
    fn span(&self, rng: &Rng) -> Micros {
        let election = self.election;
        if rng.chance(150_000) {
            return rng.log_between(2 * election, 15 * SECOND);
        }
        rng.log_between(election / 8, election * 6)
    }
}

/// The faults of a run, by time.
pub fn faults(rng: &Rng, knobs: &Knobs, calm_from: Micros) -> Vec<Timed<Fault>> {
    let mood = Mood::of(rng, knobs);
    let mut faults = Vec::new();
    if mood.kinds.is_empty() {
        return faults;
    }
    // A cluster starts in peace, sometimes.
    let mut at = if rng.chance(700_000) { 2 * SECOND } else { 0 };
    let mut rushes = 0;
    while faults.len() < FAULTS_MAX {
        at += if rng.chance(mood.together) {
            rng.below(mood.election)
        } else {
            rng.between(mood.pause / 4, mood.pause * 2)
        };
        if at >= calm_from {
            break;
        }
        for Timed { at: after, what } in fault(rng, knobs, &mood, *rng.pick(&mood.kinds)) {
            // With a rush of its own, a fault needs no other.
            let presses = matches!(what, Fault::Rush { .. });
            let pressed = !presses && rng.chance(mood.rush);
            if rushes == RUSHES_MAX && presses {
                continue;
            }
            if rushes < RUSHES_MAX && pressed {
                // Before it, so that both mean the same member.
                faults.push(Timed { at: at + after, what: rush(rng, &mood, target(&what)) });
            }
            rushes = RUSHES_MAX.min(rushes + usize::from(presses || pressed));
            faults.push(Timed { at: at + after + 1, what });
        }
    }
    faults
}

/// Whom clients press on that feel a fault: who is hit, or else the leader.
fn target(fault: &Fault) -> Who {
    fault.who().unwrap_or(Who::Leader)
}

fn rush(rng: &Rng, mood: &Mood, who: Who) -> Fault {
    let span = rng.log_between(mood.election, mood.election * 4);
    press(rng, who, span)
}

fn press(rng: &Rng, who: Who, span: Micros) -> Fault {
    let (looks, leases) = (rng.chance(500_000), rng.chance(200_000));
    Fault::Rush { who, pause: rng.log_between(span / 60, span / 8), span, looks, leases }
}

/// A rush for as long as a fault lasts.
fn rush_along(rng: &Rng, mood: &Mood, fault: &Fault) -> Fault {
    let span = fault.span().max(mood.election);
    press(rng, target(fault), span)
}

fn who(rng: &Rng, knobs: &Knobs) -> Who {
    match rng.below(10) {
        0..4 => Who::Leader,
        4..6 => Who::Follower,
        6 => Who::Newest,
        _ => Who::At(rng.between(1, u64::from(knobs.members)) as Address),
    }
}

/// One fault, or some of a kind, from now on.
fn fault(rng: &Rng, knobs: &Knobs, mood: &Mood, kind: u64) -> Vec<Timed<Fault>> {
    match kind {
        35 => asleep(rng),
        _ => at_once(rng, knobs, mood, kind).into_iter().map(|what| Timed { at: 0, what }).collect(),
    }
}

/// One fault, or some that come together.
fn at_once(rng: &Rng, knobs: &Knobs, mood: &Mood, kind: u64) -> Vec<Fault> {
    match kind {
        14 | 30 | 34 => hand_over(rng, knobs, mood),
        0..17 => vec![plain(rng, knobs, mood, who(rng, knobs), kind)],
        17 | 18 => vec![trap(rng, knobs, mood)],
        19 | 20 => seesaw(rng, mood),
        21 => {
            let (low, high) = (rng.log_between(MS, SECOND), rng.log_between(10 * MS, 12 * SECOND));
            let span = mood.span(rng).max(2 * high);
            let slow = |n| Fault::SlowDisk { who: Who::At(n), sync: (low.min(high), high), span };
            (1..=knobs.members).filter(|_| rng.chance(750_000)).map(slow).collect()
        }
        22 => vec![damage(rng, knobs)],
        23 => vec![Fault::Update { who: who(rng, knobs) }; rng.between(1, 3) as usize],
        24 => vec![rush(rng, mood, who(rng, knobs))],
        31 | 32 => {
            let fault = if kind == 31 {
                plain(rng, knobs, mood, who(rng, knobs), 31)
            } else {
                // Around an election timeout: what is held may have been put right since, or be put right by it.
                let who = if rng.chance(500_000) { Who::Follower } else { who(rng, knobs) };
                hold(rng, who, rng.between(mood.election / 3, mood.election * 3 / 2))
            };
            vec![rush_along(rng, mood, &fault), fault]
        }
        33 => behind(rng, knobs, mood),
        _ => change(rng, knobs, mood, kind),
    }
}

/// A disk that does not give back what was written.
fn damage(rng: &Rng, knobs: &Knobs) -> Fault {
    let (who, down) = (who(rng, knobs), rng.log_between(10 * MS, 2 * SECOND));
    let (one, other) = (rng.below(1 << 20), rng.below(1 << 20));
    if rng.chance(300_000) {
        return Fault::Misdirect { who, from: one, to: other, down };
    }
    Fault::Rot { who, file: one, offset: other, mask: 1 << rng.below(8), down }
}

/// Inbound, outbound.
const WAYS: [(bool, bool); 3] = [(true, true), (true, false), (false, true)];

/// Faults that are one thing.
fn plain(rng: &Rng, knobs: &Knobs, mood: &Mood, who: Who, kind: u64) -> Fault {
    let span = mood.span(rng);
    let down = rng.log_between(10 * MS, 6 * SECOND);
    let any = || rng.between(1, u64::from(knobs.members)) as Address;
    let ways = || *rng.pick(&WAYS);
    match kind {
        0 => Fault::Crash { who, power: false, down },
        1 | 2 => Fault::Crash { who, power: true, down },
        3 | 4 => Fault::CrashInDisk { who, operation: rng.log_between(1, 60), down: down.max(300 * MS) },
        5 => Fault::CrashAll { power: rng.chance(700_000), down },
        // Also for as long as leases last.
        6 => Fault::Pause {
            who,
            span: if rng.chance(400_000) { rng.log_between(SECOND, 15 * SECOND) } else { span },
        },
        7 => {
            let (inbound, outbound) = ways();
            Fault::Isolate { who, inbound, outbound, span }
        }
        8 => Fault::Split { side: (1..=knobs.members).filter(|_| rng.chance(500_000)).collect(), span },
        9 => Fault::CutLink { from: any(), to: any(), span },
        10 => Fault::Weather { link: weather(rng, knobs), span: span * 2 },
        11 => Fault::Stall { who, span },
        12 => Fault::DiskError {
            who,
            operation: rng.log_between(1, 60),
            errno: *rng.pick(&[5, 28]),
            down: down.max(300 * MS),
        },
        13 => Fault::SlowDisk { who, sync: (5 * MS, rng.log_between(10 * MS, 2 * SECOND)), span },
        14 => Fault::MoveLeader { to: any() },
        15 => Fault::ClockRate {
            who,
            rate: rng.between(1_000_000 - knobs.drift_ppm / 2, 1_000_000 + knobs.drift_ppm / 2),
            span: span * 4,
        },
        16 => hold(rng, who, span),
        _ => {
            let (inbound, outbound) = ways();
            Fault::Lag { who, inbound, outbound, link: slow(rng, knobs, mood), span }
        }
    }
}

/// What a member sends or is sent stays on its way.
fn hold(rng: &Rng, who: Who, span: Micros) -> Fault {
    let (inbound, outbound) = *rng.pick(&WAYS);
    let spread = if rng.chance(400_000) { 0 } else { rng.log_between(MS, span.max(MS)) };
    Fault::Hold { who, inbound, outbound, span, bulk: rng.chance(500_000), spread }
}

/// Links on which messages overtake each other by up to more than an election timeout.
fn slow(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Link {
    let delay = (50, rng.log_between(mood.election / 16, mood.election * 3 / 2));
    Link { delay, ..weather(rng, knobs) }
}

/// Leaders are cut off in turn while clients press on, one after the other or the same one again and again.
fn seesaw(rng: &Rng, mood: &Mood) -> Vec<Fault> {
    let fault = Fault::Seesaw {
        rounds: rng.between(2, 5) as u8,
        span: rng.log_between(mood.election, mood.election * 4),
        back: rng.chance(500_000),
    };
    match rng.chance(600_000) {
        true => vec![rush_along(rng, mood, &fault), fault],
        false => vec![fault],
    }
}

/// A follower falls behind while clients write, and then hears of it all at once: what it missed, or snapshots.
fn behind(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Vec<Fault> {
    let span = rng.log_between(mood.election, 8 * mood.election);
    let who = if rng.chance(700_000) { Who::Follower } else { who(rng, knobs) };
    let mut faults = vec![press(rng, Who::Leader, span)];
    faults.push(if rng.chance(500_000) {
        Fault::Hold {
            who,
            inbound: true,
            outbound: false,
            span,
            bulk: true,
            spread: rng.log_between(MS, mood.election),
        }
    } else {
        Fault::Isolate { who, inbound: true, outbound: rng.chance(500_000), span }
    });
    if rng.chance(500_000) {
        let sync = (rng.log_between(MS, 20 * MS), rng.log_between(20 * MS, SECOND));
        faults.push(Fault::SlowDisk { who, sync, span: span * 3 });
    }
    faults
}

/// A leader knows of leases and then of nothing, for longer than they last. Their holders renew them with another.
fn asleep(rng: &Rng) -> Vec<Timed<Fault>> {
    let (who, after, span) =
        (Who::Leader, rng.log_between(300 * MS, 3 * SECOND), rng.between(SECOND, 9 * SECOND));
    let what = match rng.below(5) {
        0..3 => Fault::Pause { who, span },
        3 => Fault::Isolate { who, inbound: true, outbound: true, span },
        _ => Fault::Stall { who, span },
    };
    let whole = after + span + SECOND;
    let pause = rng.log_between(whole / 60, whole / 20);
    let rush = Fault::Rush { who, pause, span: whole, looks: rng.chance(500_000), leases: true };
    vec![Timed { at: 0, what: rush }, Timed { at: after, what }]
}

/// Leadership is handed over; often something happens meanwhile. Or a wall clock jumps.
fn hand_over(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Vec<Fault> {
    let who = who(rng, knobs);
    if rng.chance(250_000) {
        return vec![Fault::WallJump { who, by_ms: rng.below(200_000) as i64 - 100_000 }];
    }
    let mut faults = Vec::new();
    if rng.chance(650_000) {
        let on = *rng.pick(&[Moment::HandsOver, Moment::Campaigns, Moment::Campaigns, Moment::Leads]);
        faults.push(struck(rng, knobs, mood, on, 0));
    }
    if rng.chance(400_000) {
        // What the leader and its heir say to each other, and what clients go on asking for, come in any order.
        faults.push(rush(rng, mood, Who::Leader));
        let (inbound, outbound) = *rng.pick(&WAYS);
        let link = slow(rng, knobs, mood);
        faults.push(Fault::Lag { who: Who::Leader, inbound, outbound, link, span: mood.span(rng) });
    }
    faults.push(plain(rng, knobs, mood, who, 14));
    faults
}

/// A change of the members; often something happens while it is under way.
fn change(rng: &Rng, knobs: &Knobs, mood: &Mood, kind: u64) -> Vec<Fault> {
    let down = rng.log_between(10 * MS, 6 * SECOND);
    let one = || match kind {
        25 | 26 => Fault::Replace { who: who(rng, knobs), learner: rng.chance(500_000), down },
        27 => Fault::Leave { who: who(rng, knobs), linger: rng.log_between(1, 10 * SECOND) },
        _ => match rng.below(3) {
            0 | 1 => Fault::Join { learner: true, promote: rng.chance(800_000) },
            _ => Fault::Join { learner: false, promote: false },
        },
    };
    let mut faults = vec![one()];
    if rng.chance(300_000) {
        faults.push(one());
    }
    if rng.chance(700_000) {
        // A joining member changes the members once when it is added, and again when it is promoted.
        let (on, skip) = match rng.chance(600_000) {
            true => (Moment::Asked, 0),
            false => (Moment::Changes, rng.below(2 * u64::from(knobs.members) + 2)),
        };
        faults.push(struck(rng, knobs, mood, on, skip));
    }
    if rng.chance(400_000) {
        // The leader dies right behind a change, and others may not know yet that it is made.
        let on = *rng.pick(&[Moment::Asked, Moment::LeaderChanges, Moment::LeaderChanges]);
        let skip = if on == Moment::Asked { 0 } else { rng.below(2) };
        let what = Box::new(Fault::Crash { who: Who::Struck, power: rng.chance(500_000), down });
        faults.push(Fault::Trap { on, skip, after: rng.log_between(1, 20 * MS), what });
    }
    faults
}

fn trap(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Fault {
    let skip = if rng.chance(700_000) { 0 } else { rng.log_between(1, 20) };
    struck(rng, knobs, mood, *rng.pick(&Moment::ALL), skip)
}

/// What comes right behind a moment.
fn struck(rng: &Rng, knobs: &Knobs, mood: &Mood, on: Moment, skip: u64) -> Fault {
    let who = if rng.chance(600_000) { Who::Struck } else { who(rng, knobs) };
    // Crashes most of all; else what parts a member from the others.
    let kind = *rng.pick(&[0, 1, 1, 1, 3, 6, 7, 7, 11, 16, 31]);
    let what = Box::new(plain(rng, knobs, mood, who, kind));
    Fault::Trap { on, skip, after: rng.log_between(1, 200 * MS), what }
}

fn weather(rng: &Rng, knobs: &Knobs) -> Link {
    let rate = |odds: u32, max: u64| if rng.chance(odds) { rng.log_between(1_000, max) as u32 } else { 0 };
    Link {
        loss: rate(500_000, 400_000),
        twice: rate(500_000, 500_000),
        delay: (50, rng.log_between(1_000, knobs.tick_ms * MS * 3)),
        late: rate(500_000, 200_000),
        echoes: rate(300_000, 500_000),
        echo_after: echo_after(rng, knobs.tick_ms * knobs.election_ticks * MS),
        ..Link::default()
    }
}
