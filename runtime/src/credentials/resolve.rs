//! Resolves the secret of a connection that is about to be opened: cached while it is fresh, fetched by one
//! caller at a time.

use super::{Secret, Source, Target, not_in_a_password, secret::Engine, unavailable};
use crate::{
    error::Error,
    util::{clock::Stamp, lock::lock},
};
use std::{
    any::TypeId,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep, timeout_at},
};

/// Delay before a rejected secret that has not changed is fetched again: server and provider are not rotated at
/// the same moment.
const ROTATION: Duration = Duration::from_millis(500);

/// The timeout of resolving a secret: its end and its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) until: Instant,
    pub(crate) timeout: Duration,
}

impl Bound {
    fn remaining(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// A secret, with its age and number.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) secret: Arc<Secret>,
    fetched: Stamp,
    number: u64,
}

impl Resolved {
    /// Returns whether it is a token instead of a password.
    pub(crate) fn is_token(&self) -> bool {
        self.secret.is_token
    }

    /// Returns whether it may be used without fetching it again.
    pub(crate) fn is_fresh(&self, now: Stamp) -> bool {
        let has_expired = self
            .secret
            .expires_at
            .is_some_and(|end| SystemTime::now() >= end);
        now.since(self.fetched) < self.secret.fresh_for && !has_expired
    }
}

/// The latest secret of one provider for one target. It outlives the resources: closing a pool after every
/// invocation must not cause another fetch.
#[derive(Default)]
struct Latest {
    /// Locked while fetching.
    known: AsyncMutex<Option<Resolved>>,
}

type Key = (TypeId, usize, Target);

/// One entry per provider and target; the number of parameters with `credentials` bounds it.
static LATEST: Mutex<Vec<(Key, Arc<Latest>)>> = Mutex::new(Vec::new());

fn latest(source: Source, target: &Target) -> Arc<Latest> {
    let (provider, address) = source.0.id();
    let key = (provider, address, target.clone());
    let mut all = lock(&LATEST);
    if let Some((_, known)) = all.iter().find(|(other, _)| *other == key) {
        return Arc::clone(known);
    }
    let new = Arc::new(Latest::default());
    all.push((key, Arc::clone(&new)));
    new
}

/// Returns the secret for `target`: the last one while it is fresh, otherwise a new one.
///
/// # Errors
/// If the provider has none, or takes longer than the acquire may.
pub(crate) async fn resolve(
    bound: Bound,
    source: Source,
    target: &Target,
) -> Result<Resolved, Error> {
    let resolving = known_or_fetched(source, target, |known| known.is_fresh(Stamp::now()));
    bounded(bound, source, resolving).await
}

/// Returns a secret that is newer than `failed`, which the server rejected.
///
/// If it is the same, it is fetched once more after [`ROTATION`]: server and provider are not rotated at the
/// same moment.
///
/// # Errors
/// Those of [`resolve`].
pub(crate) async fn refresh(
    bound: Bound,
    source: Source,
    target: &Target,
    failed: &Resolved,
) -> Result<Resolved, Error> {
    bounded(bound, source, async {
        let newer = known_or_fetched(source, target, |known| known.number > failed.number).await?;
        if !newer.secret.is_same(&failed.secret) || bound.remaining() <= ROTATION {
            return Ok(newer);
        }
        sleep(ROTATION).await;
        // A known secret that is still the same was fetched before this moment, by another caller.
        known_or_fetched(source, target, |known| {
            !known.secret.is_same(&failed.secret)
        })
        .await
    })
    .await
}

/// Returns the known secret if it `will_do`, for example one that another caller has fetched meanwhile;
/// otherwise fetches a new one.
async fn known_or_fetched(
    source: Source,
    target: &Target,
    will_do: impl Fn(&Resolved) -> bool,
) -> Result<Resolved, Error> {
    let latest = latest(source, target);
    let mut known = latest.known.lock().await;
    match &*known {
        Some(resolved) if will_do(resolved) => Ok(resolved.clone()),
        _ => fetch(source, target, &mut known).await,
    }
}

async fn fetch(
    source: Source,
    target: &Target,
    known: &mut Option<Resolved>,
) -> Result<Resolved, Error> {
    // Stamped before the request, so that a slow reply does not make the secret look younger.
    let fetched = Stamp::now();
    let secret = source.fetch(target).await?;
    check(&secret, target)?;
    let resolved = Resolved {
        secret: Arc::new(secret),
        fetched,
        number: known.as_ref().map_or(0, |known| known.number) + 1,
    };
    *known = Some(resolved.clone());
    Ok(resolved)
}

fn check(secret: &Secret, target: &Target) -> Result<(), Error> {
    if let Some(what) = not_in_a_password(secret.password()) {
        return Err(unavailable(format_args!("the password contains {what}")));
    }
    for (name, value) in secret.names() {
        if let Some(what) = not_in_a_password(value) {
            return Err(unavailable(format_args!(
                "the {name} in the secret contains {what}"
            )));
        }
    }
    if let Some(end) = secret.expires_at
        && let Ok(ago) = SystemTime::now().duration_since(end)
    {
        return Err(unavailable(format_args!(
            "the secret expired {} s before it was handed over",
            ago.as_secs()
        )));
    }
    if let Some(engine) = secret.engine
        && engine != target.engine
    {
        let wanted = match target.engine {
            Engine::Postgres => "PostgreSQL",
            Engine::MySql => "MySQL",
            Engine::Other => "none that has credentials",
        };
        return Err(unavailable(format_args!(
            "the secret's field `engine` is not that of the handler's parameter: expected {wanted}"
        )));
    }
    if secret.host.is_none() && target.host.is_none() {
        return Err(unavailable(format_args!(
            "the secret has no host, and {} does not name one either",
            target.variable
        )));
    }
    Ok(())
}

async fn bounded(
    bound: Bound,
    source: Source,
    work: impl Future<Output = Result<Resolved, Error>>,
) -> Result<Resolved, Error> {
    let too_slow = || {
        unavailable(format_args!(
            "the provider `{source:?}` took longer than {} ms",
            bound.timeout.as_millis()
        ))
    };
    match timeout_at(bound.until, work).await {
        // A provider that blocks its thread is not interrupted by the timeout: without this check, the next
        // step would be blamed for the delay.
        Ok(Ok(_)) if bound.remaining().is_zero() => Err(too_slow()),
        Ok(done) => done,
        Err(_) => Err(too_slow()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{credentials::Provider, error::ErrorKind};
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        time::Duration,
    };

    /// Returns `secret-1`, `secret-2` .., a new one after every `same` calls.
    struct Numbered {
        asked: AtomicU32,
        same: u32,
        fresh_for: Duration,
        takes: Duration,
    }

    impl Numbered {
        const fn new(same: u32, fresh_for: Duration) -> Self {
            Self {
                asked: AtomicU32::new(0),
                same,
                fresh_for,
                takes: Duration::ZERO,
            }
        }
    }

    impl Provider for Numbered {
        async fn fetch(&self, _: &Target) -> Result<Secret, Error> {
            sleep(self.takes).await;
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(Secret::new(format!("secret-{}", asked / self.same + 1)).fresh_for(self.fresh_for))
        }
    }

    fn bound() -> Bound {
        let timeout = Duration::from_secs(3);
        Bound {
            until: Instant::now() + timeout,
            timeout,
        }
    }

    fn target() -> Target {
        Target::of_tests("db.internal")
    }

    async fn password(source: Source) -> String {
        let resolved = resolve(bound(), source, &target()).await;
        resolved.expect("provided").secret.password().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_secret_is_not_asked_for_again() {
        static PROVIDER: Numbered = Numbered::new(1, Duration::from_secs(600));
        let source = Source::new(&PROVIDER);
        assert_eq!(password(source).await, "secret-1");
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(password(source).await, "secret-1");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(password(source).await, "secret-2");
    }

    #[test]
    fn a_secret_ages_by_the_wall_clock_too() {
        let fetched = Stamp::now();
        let resolved = Resolved {
            secret: Arc::new(Secret::new("x").fresh_for(Duration::from_secs(600))),
            fetched,
            number: 1,
        };
        assert!(resolved.is_fresh(fetched.with_wall_later(Duration::from_secs(599))));
        // The monotonic clock stopped while the environment was frozen.
        assert!(!resolved.is_fresh(fetched.with_wall_later(Duration::from_secs(601))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_time_it_is_asked_for_whenever_it_is_needed() {
        static PROVIDER: Numbered = Numbered::new(1, Duration::ZERO);
        let source = Source::new(&PROVIDER);
        assert_eq!(password(source).await, "secret-1");
        assert_eq!(password(source).await, "secret-2");
    }

    #[tokio::test(start_paused = true)]
    async fn two_callers_ask_once() {
        static PROVIDER: Numbered = Numbered {
            takes: Duration::from_millis(20),
            ..Numbered::new(1, Duration::from_secs(600))
        };
        let source = Source::new(&PROVIDER);
        let (one, two) = tokio::join!(password(source), password(source));
        assert_eq!((one.as_str(), two.as_str()), ("secret-1", "secret-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_failed_with_the_same_secret_ask_once_more() {
        static PROVIDER: Numbered = Numbered::new(1, Duration::from_secs(600));
        let source = Source::new(&PROVIDER);
        let failed = resolve(bound(), source, &target()).await.expect("first");
        for _ in 0..2 {
            let fresh = refresh(bound(), source, &target(), &failed)
                .await
                .expect("second");
            assert_eq!(fresh.secret.password(), "secret-2");
        }
        assert_eq!(PROVIDER.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_half_of_a_rotation_is_waited_for_once() {
        static PROVIDER: Numbered = Numbered::new(2, Duration::ZERO);
        let source = Source::new(&PROVIDER);
        let failed = resolve(bound(), source, &target()).await.expect("first");
        let started = Instant::now();
        let fresh = refresh(bound(), source, &target(), &failed)
            .await
            .expect("third");
        assert_eq!(fresh.secret.password(), "secret-2");
        assert_eq!(started.elapsed(), ROTATION);
        assert_eq!(PROVIDER.asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_have_fetched_before_the_other_half_came_is_not_taken_for_it() {
        static ROTATED: AtomicBool = AtomicBool::new(false);
        async fn rotating() -> Result<Secret, Error> {
            let rotated = ROTATED.load(Ordering::Relaxed);
            Ok(Secret::new(if rotated { "new" } else { "old" }))
        }
        let source = Source::new(&rotating);
        let failed = resolve(bound(), source, &target()).await.expect("old");
        // Other connections are opened, too, before the missing half of the rotation.
        assert_eq!(password(source).await, "old");
        let target = target();
        let refreshing = refresh(bound(), source, &target, &failed);
        let meanwhile = async {
            sleep(Duration::from_millis(10)).await;
            assert_eq!(password(source).await, "old");
            ROTATED.store(true, Ordering::Relaxed);
        };
        let (fresh, ()) = tokio::join!(refreshing, meanwhile);
        assert_eq!(fresh.expect("new").secret.password(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_is_bounded_and_one_that_was_dropped_is_asked_again() {
        static PROVIDER: Numbered = Numbered {
            takes: Duration::from_secs(60),
            ..Numbered::new(1, Duration::ZERO)
        };
        let source = Source::new(&PROVIDER);
        for _ in 0..2 {
            let error = resolve(bound(), source, &target())
                .await
                .expect_err("hangs");
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(error.to_string().contains("3000 ms"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_async_function_is_a_provider_and_its_error_is_told() {
        async fn fails() -> Result<Secret, std::io::Error> {
            Err(std::io::Error::other("the vault is sealed"))
        }
        async fn works() -> Result<Secret, Error> {
            Ok(Secret::new("by a function"))
        }
        assert_eq!(password(Source::new(&works)).await, "by a function");
        let error = resolve(bound(), Source::new(&fails), &target())
            .await
            .expect_err("sealed");
        assert_eq!(
            error.to_string(),
            "handler: credentials: the vault is sealed"
        );
        assert_eq!(error.kind(), ErrorKind::Credentials);
    }

    #[tokio::test]
    async fn what_cannot_be_right_is_named() {
        async fn expired() -> Result<Secret, Error> {
            Ok(Secret::new("hunter2").expires_at(SystemTime::UNIX_EPOCH))
        }
        async fn mysql() -> Result<Secret, Error> {
            Secret::from_rds_json(r#"{"engine":"mysql","username":"hunter2","password":"hunter2"}"#)
        }
        async fn nowhere() -> Result<Secret, Error> {
            Ok(Secret::new("hunter2"))
        }
        for (source, target, named) in [
            (Source::new(&expired), target(), "expired"),
            (Source::new(&mysql), target(), "`engine`"),
            (
                Source::new(&nowhere),
                Target {
                    host: None,
                    ..target()
                },
                "DATABASE_URL",
            ),
        ] {
            let error = resolve(bound(), source, &target).await.expect_err(named);
            let text = format!("{error:?}");
            assert!(text.contains(named) && !text.contains("hunter"), "{text}");
        }
    }
}
