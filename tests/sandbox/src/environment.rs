//! One execution environment: a sequence of processes of one function, behind its own network.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{
    clock::lock,
    function::Event,
    life::{Blueprint, Ended, Init, Life, Order},
    proxy::{Fault, Proxy},
    record::{After, InitFailure, Invocation, Outcome, Phase, PhaseKind, Violation},
};

/// Maximum time from a response to the freeze.
const TO_FREEZE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// An execution environment. After a timeout or a crash the next invocation starts a new process, as on the
/// real platform. Dropping it kills every process immediately.
#[derive(Debug)]
pub struct Environment {
    number: usize,
    blueprint: Blueprint,
    proxies: Vec<Proxy>,
    freeze_between: bool,
    life: Mutex<Option<Arc<Life>>>,
    /// When the last start had finished.
    ready: std::sync::Mutex<Option<Instant>>,
    invocations: AtomicU32,
    starts: AtomicU32,
}

impl Environment {
    pub(crate) fn new(
        number: usize,
        blueprint: Blueprint,
        proxies: Vec<Proxy>,
        freeze_between: bool,
    ) -> Self {
        Self {
            number,
            blueprint,
            proxies,
            freeze_between,
            life: Mutex::default(),
            ready: std::sync::Mutex::default(),
            invocations: AtomicU32::new(0),
            starts: AtomicU32::new(0),
        }
    }

    /// Starts the process if there is none, and waits until it is ready.
    ///
    /// # Errors
    /// If the function does not become ready in time.
    pub async fn start(&self) -> Result<(), InitFailure> {
        let (life, _) = self.living(self.blueprint.limits.init).await?;
        self.settle(&life).await;
        Ok(())
    }

    /// Sends one event and follows it until the function waits for the next one or ends. Starts a process if there
    /// is none, continues a stopped one, and stops it again afterwards (unless
    /// [`freeze_between`](crate::Sandbox::freeze_between) is off).
    pub async fn invoke(&self, event: impl Into<Event>) -> Invocation {
        let asked = Instant::now();
        let number = self.invocations.fetch_add(1, Ordering::SeqCst) + 1;
        let (life, init) = match self.living(self.blueprint.limits.init).await {
            Ok(living) => living,
            Err(failure) => return self.never_started(asked, number, failure),
        };
        let order = Order {
            event: event.into(),
            number,
            asked,
            // Also if it waited for a start that it did not request.
            cold: lock(&self.ready).is_some_and(|ready| ready > asked),
            init,
        };
        let invocation = life.invoke(order).await;
        self.settle(&life).await;
        invocation
    }

    /// Stops the process group, unless an invocation is running. Returns whether every process is stopped.
    pub async fn freeze(&self) -> bool {
        match self.current().await {
            Some(life) => life.freeze().await,
            None => false,
        }
    }

    /// Continues the process group.
    pub async fn thaw(&self) {
        if let Some(life) = self.current().await {
            life.thaw().await;
        }
    }

    /// How long it has been frozen; `None` if it is not.
    pub async fn frozen_for(&self) -> Option<Duration> {
        self.current().await?.frozen_for().await
    }

    /// Waits until it has been frozen for `pause`, counted from the beginning of the freeze. Use it only
    /// if the length of the freeze matters; wait for an event during the freeze directly. Waits at most 2 s
    /// for work after the response. Returns `false` if it is not frozen, or was not all the time.
    pub async fn stands_still_for(&self, pause: Duration) -> bool {
        let frozen = async {
            loop {
                if let Some(lasted) = self.frozen_for().await {
                    return lasted;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let Ok(lasted) = tokio::time::timeout(TO_FREEZE, frozen).await else {
            return false;
        };
        tokio::time::sleep(pause.saturating_sub(lasted)).await;
        self.frozen_for()
            .await
            .is_some_and(|lasted| lasted >= pause)
    }

    /// Advances the wall clock, as a long freeze does, but not the monotonic clock.
    ///
    /// # Errors
    /// If the simulator was built without [`wall_clock_jumps`](crate::Sandbox::wall_clock_jumps).
    pub fn jump(&self, by: Duration) -> io::Result<()> {
        self.blueprint.wall.jump(by)
    }

    /// Ends the environment as the platform does when it is no longer needed. Returns `None` if there was no
    /// process.
    pub async fn shutdown(&self) -> Option<Ended> {
        let life = self.life.lock().await.take()?;
        Some(life.end("SPINDOWN").await)
    }

    /// Whether there is a process.
    pub async fn is_alive(&self) -> bool {
        self.current().await.is_some_and(|life| life.is_alive())
    }

    /// The function's process id.
    pub async fn pid(&self) -> Option<u32> {
        self.current().await.map(|life| life.pid())
    }

    /// The number of processes so far.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::SeqCst)
    }

    /// Its number in the fleet, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The networks between this function and its databases, in the order of
    /// [`Sandbox::database`](crate::Sandbox::database).
    #[must_use]
    pub fn networks(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Applies a fault to the network to every database.
    pub fn apply(&self, fault: Fault) {
        self.proxies.iter().for_each(|proxy| proxy.apply(fault));
    }

    /// Inits, freezes and shutdowns so far, in order.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        self.blueprint.journal.phases()
    }

    /// The function's violations of the protocol, in this and earlier processes.
    pub async fn violations(&self) -> Vec<Violation> {
        let mut violations = self.blueprint.journal.violations();
        if let Some(life) = self.current().await {
            violations.extend(life.violations());
        }
        violations
    }

    async fn current(&self) -> Option<Arc<Life>> {
        self.life.lock().await.clone()
    }

    /// The current process, or a new one (with the phases of its start).
    async fn living(
        &self,
        limit: Duration,
    ) -> Result<(Arc<Life>, Option<Vec<Phase>>), InitFailure> {
        let mut slot = self.life.lock().await;
        if let Some(life) = &*slot {
            if life.is_alive() {
                return Ok((Arc::clone(life), None));
            }
            // It ended between invocations: ends the processes that it left.
            life.end("FAILURE").await;
            *slot = None;
        }
        self.starts.fetch_add(1, Ordering::SeqCst);
        let Init { life, phases } = self.blueprint.start(limit).await?;
        *lock(&self.ready) = Some(Instant::now());
        let life = Arc::new(life);
        *slot = Some(Arc::clone(&life));
        Ok((life, Some(phases)))
    }

    /// After an invocation: freezes the process, or ends it if it has exited.
    async fn settle(&self, life: &Arc<Life>) {
        if !life.is_alive() {
            let mut slot = self.life.lock().await;
            if slot
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, life))
            {
                *slot = None;
            }
        } else if self.freeze_between {
            life.freeze().await;
        }
    }

    fn never_started(&self, asked: Instant, number: u32, failure: InitFailure) -> Invocation {
        let now = Instant::now();
        Invocation {
            request_id: crate::ids::uuid(),
            number,
            cold: true,
            outcome: Outcome::InitFailed(failure),
            waited: now - asked,
            billed: Duration::ZERO,
            after: After::NoAnswer,
            phases: vec![self.blueprint.journal.phase(PhaseKind::Init, asked, now)],
        }
    }

    /// The total time of its inits, which is billed as well.
    #[must_use]
    pub fn billed_init(&self) -> Duration {
        let phases = self.phases();
        let inits = phases
            .iter()
            .filter(|p| matches!(p.kind, PhaseKind::Init | PhaseKind::Restore));
        Duration::from_secs_f64(
            inits
                .map(|phase| phase.to - phase.from)
                .sum::<f64>()
                .max(0.0)
                / 1000.0,
        )
    }

    /// Milliseconds since the start of the run, as in every report.
    #[must_use]
    pub fn now_ms(&self) -> f64 {
        self.blueprint.journal.epoch.ms(Instant::now())
    }
}
