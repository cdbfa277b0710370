//! Random sequences of invocations, compared with a simple model: which generation each invocation gets, and
//! which generations are open after each step.
//!
//! A failure prints its seed; `PROPTEST_RNG_SEED=<seed>` repeats it.

use crate::fake::{FakeEvent, Script, let_cleanups_run, shared};
use db_handler::{
    __private::{Close, Config, Site},
    Error, ErrorKind,
};
use futures_util::{FutureExt, future::BoxFuture};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use std::{
    collections::{HashMap, HashSet},
    env,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::oneshot, time::advance};

/// Maximum number of concurrent invocations.
const AT_ONCE: usize = 4;
const IDLE_MS: u64 = 5_000;
const LIFETIME_MS: u64 = 20_000;
/// Time until the deadline, and until the handler is cancelled.
const LIMIT_MS: u64 = 3_000;
const STOPPED_AFTER_MS: u64 = 2_750;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Succeeds,
    Fails,
    Panics,
    IsDropped,
}

#[derive(Debug, Clone)]
enum Step {
    Begin {
        who: usize,
        limited: bool,
    },
    End {
        who: usize,
        how: How,
    },
    /// Advances the clock, past deadlines too.
    Pass {
        ms: u64,
    },
    /// Kills the current generation.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => Just(How::Succeeds),
        1 => Just(How::Fails),
        1 => Just(How::Panics),
        1 => Just(How::IsDropped),
    ];
    prop_oneof![
        6 => (0..AT_ONCE, any::<bool>()).prop_map(|(who, limited)| Step::Begin { who, limited }),
        6 => (0..AT_ONCE, how).prop_map(|(who, how)| Step::End { who, how }),
        3 => prop_oneof![Just(10_u64), Just(1_001), Just(3_000), Just(5_001)]
            .prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Kill),
    ]
}

/// The expected state of one generation.
struct Generation {
    leases: usize,
    retired: bool,
    killed: bool,
    opened: u64,
    last_used: u64,
}

/// The expected state of one invocation.
struct Holder {
    generation: u64,
    outdated: Option<u64>,
    stop_at: Option<u64>,
}

struct Model {
    close: Close,
    now: u64,
    opened: u64,
    current: Option<u64>,
    alive: HashMap<u64, Generation>,
    holders: HashMap<usize, Holder>,
}

impl Model {
    fn begin(&mut self, who: usize, limited: bool) -> u64 {
        let mut outdated = None;
        let offered = self.current.and_then(|number| {
            let kept = self.alive.get_mut(&number)?;
            let young = self.now - kept.opened <= LIFETIME_MS;
            let busy = kept.leases > 0;
            if young && (busy || self.now - kept.last_used <= IDLE_MS) && !kept.killed {
                kept.leases += 1;
                return Some(number);
            }
            kept.retired = true;
            outdated = (!busy).then_some(number);
            None
        });
        let generation = offered.unwrap_or_else(|| {
            self.opened += 1;
            let opened = Generation {
                leases: 1,
                retired: false,
                killed: false,
                opened: self.now,
                last_used: self.now,
            };
            self.alive.insert(self.opened, opened);
            self.opened
        });
        self.current = Some(generation);
        let holder = Holder {
            generation,
            outdated,
            stop_at: limited.then_some(self.now + STOPPED_AFTER_MS),
        };
        self.holders.insert(who, holder);
        generation
    }

    /// `how` is `None` at the deadline.
    fn end(&mut self, who: usize, how: Option<How>) {
        let holder = self.holders.remove(&who).expect("it runs");
        if let Some(outdated) = holder.outdated {
            self.alive.remove(&outdated);
        }
        let number = holder.generation;
        let generation = self.alive.get_mut(&number).expect("it is held");
        let normal = matches!(how, Some(How::Succeeds | How::Fails));
        let closes = match self.close {
            Close::Always => true,
            Close::OnError => how != Some(How::Succeeds),
            _ => !normal,
        };
        generation.leases -= 1;
        generation.last_used = self.now;
        let last = generation.leases == 0;
        // With `always`, the last lease closes, except after a panic, a drop or the deadline.
        generation.retired |= closes && (self.close != Close::Always || !normal || last);
        let retired = generation.retired;
        if retired && self.current == Some(number) {
            self.current = None;
        }
        if retired && last {
            self.alive.remove(&number);
        }
    }
}

/// A running invocation.
struct Running {
    future: BoxFuture<'static, ()>,
    tell: oneshot::Sender<How>,
}

struct World {
    site: &'static Site,
    script: Arc<Script>,
    running: HashMap<usize, Running>,
    /// Generations of invocations that ended abnormally: they must not be reused.
    spoilt: HashSet<u64>,
}

impl World {
    fn new(close: Close) -> Self {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let name: &'static str = format!("world_{}", WORLDS.fetch_add(1, Ordering::Relaxed)).leak();
        let config = Config::new()
            .close(close)
            .idle_ms(IDLE_MS)
            .lifetime_ms(LIFETIME_MS);
        let configs: &'static [Config] = vec![config].leak();
        Self {
            site: Box::leak(Box::new(Site::new("model", name, configs))),
            script: Script::of(format!("model::{name}").leak()),
            running: HashMap::new(),
            spoilt: HashSet::new(),
        }
    }

    /// Starts an invocation and returns its generation.
    fn begin(&mut self, who: usize, limited: bool) -> Option<u64> {
        let (tell, told) = oneshot::channel();
        let got = Arc::new(Mutex::new(None));
        let (site, note) = (self.site, Arc::clone(&got));
        let event = if limited {
            FakeEvent::with_ms_left(LIMIT_MS)
        } else {
            FakeEvent::default()
        };
        let calling = async move {
            let _ = shared(site, event, async |fake| {
                *note.lock().expect("unpoisoned") = Some(fake.generation());
                match told.await {
                    Ok(How::Succeeds) => Ok(()),
                    // Bypasses the panic hook.
                    Ok(How::Panics) => resume_unwind(Box::new("scripted")),
                    _ => Err(Error::new(ErrorKind::Query, "scripted")),
                }
            })
            .await;
        };
        let future = AssertUnwindSafe(calling).catch_unwind().map(drop).boxed();
        let mut running = Running { future, tell };
        let ended = (&mut running.future).now_or_never();
        assert!(ended.is_none(), "it ended at once");
        self.running.insert(who, running);
        *got.lock().expect("unpoisoned")
    }

    fn end(&mut self, who: usize, how: How) {
        let running = self.running.remove(&who).expect("it runs");
        if how != How::IsDropped {
            running.tell.send(how).expect("it listens");
            assert!(running.future.now_or_never().is_some(), "it does not end");
        }
    }

    fn stop(&mut self, who: usize) {
        let running = self.running.remove(&who).expect("it runs");
        assert!(running.future.now_or_never().is_some(), "it is not stopped");
    }
}

async fn live(close: Close, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(close);
    let mut model = Model {
        close,
        now: 0,
        opened: 0,
        current: None,
        alive: HashMap::new(),
        holders: HashMap::new(),
    };
    for step in steps {
        match step {
            Step::Begin { who, limited } if !model.holders.contains_key(&who) => {
                let expected = model.begin(who, limited);
                let got = world.begin(who, limited);
                prop_assert_eq!(got, Some(expected), "the wrong generation");
                prop_assert!(!world.spoilt.contains(&expected), "used again");
            }
            Step::End { who, how } if model.holders.contains_key(&who) => {
                if !matches!(how, How::Succeeds | How::Fails) {
                    world.spoilt.insert(model.holders[&who].generation);
                }
                model.end(who, Some(how));
                world.end(who, how);
                let_cleanups_run().await;
            }
            Step::Pass { ms } => {
                advance(Duration::from_millis(ms)).await;
                model.now += ms;
                for who in 0..AT_ONCE {
                    let Some(holder) = model.holders.get(&who) else {
                        continue;
                    };
                    if holder.stop_at.is_some_and(|stop_at| stop_at <= model.now) {
                        world.spoilt.insert(holder.generation);
                        model.end(who, None);
                        world.stop(who);
                    }
                }
            }
            Step::Kill => {
                if let Some(current) = model.current {
                    world.script.kill(current);
                    let killed = model.alive.get_mut(&current).expect("it is offered");
                    killed.killed = true;
                }
            }
            _ => {}
        }
        let real = world.script.generations();
        let expected: HashSet<u64> = model.alive.keys().copied().collect();
        prop_assert_eq!(&real.alive, &expected, "the wrong ones are open");
        for holder in model.holders.values() {
            let held = holder.generation;
            prop_assert!(!real.closed.contains(&held), "closed under a lease");
        }
        if close == Close::Always && model.holders.is_empty() {
            prop_assert!(real.alive.is_empty(), "open between invocations");
        }
    }
    Ok(())
}

#[test]
fn random_invocations_match_model() {
    let seed = env::var("PROPTEST_RNG_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(now.expect("after 1970").subsec_nanos())
        });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 512,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let policy = prop_oneof![
        Just(Close::Always),
        Just(Close::OnError),
        Just(Close::Never)
    ];
    let lives = runner.run(&(policy, vec(step(), 1..60)), |(close, steps)| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(live(close, steps))
    });
    if let Err(error) = lives {
        panic!("PROPTEST_RNG_SEED={seed} repeats this: {error}");
    }
}
