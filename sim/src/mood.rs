//! Draws what the clients of a run do.

use crate::{
    host::Micros,
    net::Address,
    plan::{
        Action, AuthStep, CompareStep, Knobs, OpStep, PutStep, RangeStep, Rev, SessionsStep, Span, Step,
        StreamStep, TurnStep, TxnStep, WatchStep,
    },
    rng::Rng,
};

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;

/// How a run's clients are.
struct Mood {
    keys: u8,
    leases: u8,
    /// Kinds of steps, each as often as it is in here.
    kinds: Vec<u8>,
    values: u64,
    serializable: u32,
    nested: bool,
}

/// The steps of all clients of a run.
pub fn clients(rng: &Rng, knobs: &Knobs, calm_from: Micros, steps_max: u64) -> Vec<Vec<Step>> {
    let count = rng.log_between(1, 12);
    let mut kinds: Vec<u8> = (0..STEP_KINDS)
        .flat_map(|kind| {
            let weight = if rng.chance(700_000) { rng.log_between(1, 16) } else { 0 };
            std::iter::repeat_n(kind, weight as usize)
        })
        .collect();
    if rng.chance(350_000) {
        let theme = rng.pick(&THEMES);
        (0..rng.log_between(1, 24)).for_each(|_| kinds.extend_from_slice(theme));
    }
    let mood = Mood {
        keys: rng.log_between(1, 24) as u8,
        leases: rng.log_between(1, 4) as u8,
        kinds: if kinds.is_empty() { vec![0, 1] } else { kinds },
        values: *rng.pick(&[64, 64, 64, 64, 2_000, 2_000, 2_000, 40_000]),
        serializable: rng.below(500_000) as u32,
        nested: rng.chance(500_000),
    };
    let total = rng.log_between(steps_max / 8, steps_max);
    let each = (total / count).max(1);
    // The steps spread over the storm, whatever their number.
    let pause = (calm_from / each).max(MS);
    let mut all: Vec<Vec<Step>> = (0..count)
        .map(|_| {
            let mut steps = vec![];
            if knobs.auth {
                steps.push(Step { wait: 0, action: Action::Become { user: somebody(rng) } });
            }
            for _ in 0..each {
                let wait = rng.below(pause * 2);
                steps.push(Step { wait, action: action(rng, knobs, &mood) });
            }
            steps
        })
        .collect();
    if knobs.auth {
        all.push(admin(rng, &mood, calm_from));
    }
    all
}

/// Who sets up users and roles, and goes on changing them.
fn admin(rng: &Rng, mood: &Mood, calm_from: Micros) -> Vec<Step> {
    let begin = Step { wait: rng.below(calm_from / 2), action: Action::Become { user: Some(0) } };
    let mut steps = vec![begin];
    let at_once = |step| Step { wait: rng.below(20 * MS), action: Action::Auth(step) };
    steps.extend(users(rng, mood).into_iter().map(at_once));
    let changes = rng.log_between(4, 120);
    let pause = (calm_from / changes).max(MS);
    for _ in 0..changes {
        steps.push(Step { wait: rng.below(pause * 2), action: Action::Auth(auth(rng, mood)) });
    }
    steps
}

const STEP_KINDS: u8 = 20;

/// What a run may be about: leases, compaction of keys that come and go, watches behind a compaction, turns.
const THEMES: [&[u8]; 4] = [&[8, 10, 11, 18, 18], &[0, 0, 4, 7, 16], &[0, 7, 13, 14], &[15, 17, 18]];

fn action(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Action {
    if knobs.auth && rng.chance(30_000) {
        return match rng.chance(500_000) {
            true => Action::Become { user: somebody(rng) },
            false => Action::Auth(auth(rng, mood)),
        };
    }
    let lease = rng.below(mood.leases.into()) as u8;
    match *rng.pick(&mood.kinds) {
        0 | 1 => Action::Put(put(rng, mood)),
        2 | 3 => Action::Range(range(rng, mood, true)),
        4 => Action::Delete { span: span(rng, mood), prev_kv: rng.chance(400_000) },
        5 | 6 => Action::Txn(txn(rng, mood, 0)),
        7 => Action::Compact {
            rev: revision(rng, 30_000),
            physical: rng.chance(300_000),
            hash: rng.chance(300_000),
        },
        8 => Action::Grant { lease, ttl: rng.log_between(1, 12) as i64 },
        9 => Action::Revoke { lease },
        10 => Action::KeepAlive { lease },
        11 => Action::TimeToLive { lease, keys: rng.chance(700_000) },
        12 => Action::Leases,
        13 | 14 => Action::Watch(stream(rng, mood)),
        15 => Action::Lock {
            name: rng.below(2) as u8,
            ttl: rng.log_between(1, 12) as i64,
            hold: rng.log_between(MS, 3 * SECOND),
        },
        16 => match rng.below(6) {
            0 => Action::Defragment,
            1 => Action::Status,
            2 => Action::HashKv { rev: revision(rng, 300_000) },
            _ => Action::HashAll { rev: Rev::Back(rng.log_between(1, 10) as i64 - 1) },
        },
        17 => match rng.below(5) {
            0 => Action::Leader { name: rng.below(2) as u8 },
            _ => Action::Turn(turn(rng)),
        },
        18 => Action::Sessions(sessions(rng, mood)),
        _ => Action::Move { to: rng.between(1, knobs.members.into()) as Address },
    }
}

fn span(rng: &Rng, mood: &Mood) -> Span {
    let any = || rng.below(mood.keys.into()) as u8;
    match rng.below(10) {
        0..6 => Span::Key(any()),
        6 | 7 => {
            let (a, b) = (any(), any());
            Span::Between(a.min(b), a.max(b).saturating_add(1))
        }
        8 => Span::From(any()),
        _ => Span::All,
    }
}

/// Zero, one seen a while ago, or one that is not yet; `ahead` in a million of the last.
fn revision(rng: &Rng, ahead: u32) -> Rev {
    if rng.chance(ahead) {
        return Rev::Ahead(rng.log_between(1, 50) as i64);
    }
    match rng.below(20) {
        0 => Rev::Exactly(1),
        _ => Rev::Back(rng.log_between(1, 200) as i64 - 1),
    }
}

fn put(rng: &Rng, mood: &Mood) -> PutStep {
    let lease = rng.chance(250_000).then(|| rng.below(mood.leases.into()) as u8);
    PutStep {
        key: rng.below(mood.keys.into()) as u8,
        size: rng.log_between(1, mood.values) as u32,
        lease,
        prev_kv: rng.chance(300_000),
        ignore_value: rng.chance(50_000),
        ignore_lease: lease.is_none() && rng.chance(80_000),
    }
}

fn range(rng: &Rng, mood: &Mood, alone: bool) -> RangeStep {
    let bound = || rng.chance(60_000).then(|| revision(rng, 50_000));
    RangeStep {
        span: span(rng, mood),
        rev: if rng.chance(700_000) { Rev::Now } else { revision(rng, 50_000) },
        limit: if rng.chance(250_000) { rng.log_between(1, 8) as i64 } else { 0 },
        sort: if rng.chance(250_000) { (rng.below(3) as i32, rng.below(5) as i32) } else { (0, 0) },
        serializable: alone && rng.chance(mood.serializable),
        keys_only: rng.chance(80_000),
        count_only: rng.chance(80_000),
        bounds: [bound(), bound(), bound(), bound()],
    }
}

fn txn(rng: &Rng, mood: &Mood, depth: u32) -> TxnStep {
    let compares = (0..rng.below(3)).map(|_| compare(rng, mood)).collect();
    // No key may be put twice on one way through; what etcd refuses is worth asking for now and then.
    let ops = || {
        let count = rng.log_between(1, 5) - u64::from(rng.chance(200_000));
        (0..count)
            .map(|_| match rng.below(if depth < 2 && mood.nested { 8 } else { 7 }) {
                0..3 => OpStep::Put(put(rng, mood)),
                3..5 => OpStep::Range(range(rng, mood, false)),
                5 | 6 => OpStep::Delete { span: span(rng, mood), prev_kv: rng.chance(400_000) },
                _ => OpStep::Txn(txn(rng, mood, depth + 1)),
            })
            .collect()
    };
    TxnStep { compares, success: ops(), failure: ops() }
}

fn compare(rng: &Rng, mood: &Mood) -> CompareStep {
    let rev = if rng.chance(400_000) { Rev::Now } else { revision(rng, 50_000) };
    CompareStep {
        span: if rng.chance(800_000) {
            Span::Key(rng.below(mood.keys.into()) as u8)
        } else {
            span(rng, mood)
        },
        result: rng.below(4) as i32,
        target: rng.below(5) as i32,
        number: rng.below(4) as i64,
        rev,
    }
}

/// A stream of watches.
fn stream(rng: &Rng, mood: &Mood) -> StreamStep {
    let count = if rng.chance(500_000) { 1 } else { rng.between(2, 5) };
    StreamStep {
        watches: (0..count).map(|_| watch(rng, mood)).collect(),
        span_micros: (!rng.chance(300_000)).then(|| rng.log_between(SECOND, 40 * SECOND)),
        slow: if rng.chance(250_000) { rng.log_between(MS, SECOND) } else { 0 },
        ask_progress: if rng.chance(250_000) { rng.log_between(20 * MS, 5 * SECOND) } else { 0 },
    }
}

fn watch(rng: &Rng, mood: &Mood) -> WatchStep {
    let rev = match rng.below(10) {
        0..4 => Rev::Now,
        4..7 => revision(rng, 0),
        7 | 8 => Rev::Ahead(rng.log_between(1, 30) as i64),
        _ => Rev::Exactly(*rng.pick(&[1, 1, -1, 2])),
    };
    WatchStep {
        wait: if rng.chance(500_000) { 0 } else { rng.log_between(MS, 5 * SECOND) },
        span: span(rng, mood),
        rev,
        prev_kv: rng.chance(500_000),
        progress: rng.chance(400_000),
        fragment: rng.chance(300_000),
        filters: if rng.chance(150_000) { vec![rng.below(2) as i32] } else { Vec::new() },
        id: if rng.chance(250_000) { rng.between(1, 6) as i64 } else { 0 },
        cancel: rng.chance(250_000).then(|| rng.log_between(MS, 10 * SECOND)),
        again: rng.chance(500_000),
    }
}

/// A turn at a lock or an election.
fn turn(rng: &Rng) -> TurnStep {
    TurnStep {
        election: rng.chance(400_000),
        name: rng.below(2) as u8,
        ttl: rng.log_between(1, 12) as i64,
        renew: rng.chance(500_000),
        hold: rng.log_between(MS, 6 * SECOND),
        proclaim: rng.chance(300_000),
        leave: rng.chance(700_000),
        revoke: rng.chance(500_000),
    }
}

fn sessions(rng: &Rng, mood: &Mood) -> SessionsStep {
    SessionsStep {
        count: rng.log_between(1, 5) as u8,
        ttl: rng.log_between(1, 12) as i64,
        key: rng.below(mood.keys.into()) as u8,
        renew_first: rng.chance(300_000),
        renewals: if rng.chance(300_000) { 0 } else { rng.log_between(1, 12) as u8 },
        renew_percent: *rng.pick(&[20, 33, 60, 85, 95]),
        late: rng.chance(400_000),
        revoke: rng.chance(400_000),
    }
}

/// Users beside root, and roles beside root.
const USERS: u64 = 3;
const ROLES: u64 = 3;

/// Users, roles and what they may, from nothing to authorization that is on.
fn users(rng: &Rng, mood: &Mood) -> Vec<AuthStep> {
    let mut steps = vec![AuthStep::UserAdd { user: 0 }, AuthStep::GrantRole { user: 0, role: 0 }];
    for role in 1..=ROLES as u8 {
        steps.push(AuthStep::RoleAdd { role });
        steps.push(permit(rng, mood, role));
    }
    for user in 1..=USERS as u8 {
        steps.push(AuthStep::UserAdd { user });
        steps.push(AuthStep::GrantRole { user, role: rng.between(1, ROLES) as u8 });
    }
    steps.push(AuthStep::Enable);
    steps
}

fn permit(rng: &Rng, mood: &Mood, role: u8) -> AuthStep {
    let span = if rng.chance(300_000) { Span::All } else { span(rng, mood) };
    AuthStep::Permit { role, span, access: *rng.pick(&[0, 1, 2, 2]) }
}

/// A change of users or roles, or a question; what can't be done is asked for as well.
fn auth(rng: &Rng, mood: &Mood) -> AuthStep {
    let user = rng.between(1, USERS) as u8;
    let role = rng.between(1, ROLES) as u8;
    let any_user = if rng.chance(50_000) { 0 } else { user };
    let any_role = if rng.chance(50_000) { 0 } else { role };
    match rng.below(20) {
        0 | 1 => permit(rng, mood, role),
        2 => AuthStep::Forbid { role, span: span(rng, mood) },
        3 => AuthStep::Forbid { role, span: Span::All },
        4 | 5 => AuthStep::GrantRole { user, role: any_role },
        6 | 7 => AuthStep::RevokeRole { user: any_user, role: any_role },
        8 => AuthStep::UserAdd { user: any_user },
        9 => AuthStep::UserDelete { user: any_user },
        10 => AuthStep::Password { user: any_user },
        11 => AuthStep::RoleAdd { role: any_role },
        12 => AuthStep::RoleDelete { role: any_role },
        13 => AuthStep::Enable,
        14 if rng.chance(300_000) => AuthStep::Disable,
        14 | 15 => AuthStep::Status,
        16 => AuthStep::UserGet { user: any_user },
        17 => AuthStep::RoleGet { role: any_role },
        18 => AuthStep::UserList,
        _ => AuthStep::RoleList,
    }
}

/// Whom a client logs in as: root, a user, or nobody.
fn somebody(rng: &Rng) -> Option<u8> {
    match rng.below(10) {
        0..3 => Some(0),
        3..9 => Some(rng.between(1, USERS) as u8),
        _ => None,
    }
}
