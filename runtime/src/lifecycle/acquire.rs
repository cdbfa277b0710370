//! Phases 1 and 2: leases a usable generation, opened or reset.

use super::{
    site::Site,
    slot::{Lease, Offer, Released, Retired, Slot},
    timeline::{Phase, Timeline},
};
use crate::{
    config::Connect,
    error::{Error, ErrorKind, Stage},
    resource::{self, AcquireContext, Health, Resource},
    util::{
        catch_panic::{self, catch_panic},
        clock::Stamp,
    },
};
use std::{env, fmt, future::Future, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// Leases the generation of `slot` if it is still usable, otherwise opens a new one. Generations that are too
/// old or dead go to `retired`, to be closed after the response.
pub(super) async fn lease<R: Resource>(
    slot: &Arc<Slot<R>>,
    acquire: &AcquireContext,
    timeline: Option<&Timeline>,
    retired: &mut Vec<Retired<R>>,
) -> Result<Lease<R>, Error> {
    if let Some(lease) = kept(slot, acquire, timeline, retired).await {
        return Ok(lease);
    }
    let waiting = || format!("waiting for another invocation to open {}", R::NAME);
    let _opening = bounded(acquire, waiting, async { Ok(slot.opening_lock().await) }).await?;
    // Another invocation may have opened it meanwhile.
    if let Some(lease) = kept(slot, acquire, timeline, retired).await {
        return Ok(lease);
    }
    let from = Instant::now();
    let resource = open::<R>(acquire, acquire.settings().min > 0).await?;
    if let Some(timeline) = timeline {
        let what = format!("{} opened ({})", R::NAME, resource.usage());
        timeline.add(Phase::Init, from, what);
    }
    tracing::debug!(
        handler = acquire.handler(),
        resource = R::NAME,
        took = ?from.elapsed(),
        "opened"
    );
    Ok(slot.install(resource))
}

/// Leases the idle or shared generation of `slot`, if it is still healthy.
async fn kept<R: Resource>(
    slot: &Arc<Slot<R>>,
    acquire: &AcquireContext,
    timeline: Option<&Timeline>,
    retired: &mut Vec<Retired<R>>,
) -> Option<Lease<R>> {
    let from = Instant::now();
    let (lease, idle) = match slot.offer(acquire.settings(), Stamp::now()) {
        Offer::Kept { lease, idle } => (lease, idle),
        Offer::Empty { retired: old } => {
            if old.is_some() {
                note_reset(timeline, from, || {
                    format!("{} too old or idle for too long: replaced", R::NAME)
                });
            }
            retired.extend(old);
            return None;
        }
    };
    let resetting = catch_panic(R::NAME, "check", || lease.resource().check(idle));
    let health = timeout_at(acquire.until(), resetting).await;
    if let Ok(Err(panicked)) = &health {
        catch_panic::report(panicked, acquire.handler());
    }
    if let Ok(Ok(Health::Healthy)) = health {
        note_reset(timeline, from, || {
            format!(
                "{} kept, idle for {} ms ({})",
                R::NAME,
                idle.as_millis(),
                lease.resource().usage()
            )
        });
        return Some(lease);
    }
    note_reset(timeline, from, || format!("{} dead: replaced", R::NAME));
    lease.retire();
    if let Released::Close(old) = lease.release(true) {
        retired.push(old);
    }
    None
}

fn note_reset(timeline: Option<&Timeline>, from: Instant, what: impl FnOnce() -> String) {
    if let Some(timeline) = timeline {
        timeline.add(Phase::Reset, from, what());
    }
}

/// Prepares a resource before the first event. Only a permanent problem is an error: a server that is down now
/// may be up when the event arrives.
pub(super) async fn prepare<R: Resource>(
    site: &'static Site,
    parameter: usize,
) -> Result<(), Error> {
    let settings = site.settings::<R>(parameter);
    // With credentials, the URL is optional.
    if settings.env.is_some() && settings.credentials.is_none() {
        resource::url(settings.env)
            .map_err(|error| error.at(Stage::Init).in_handler(site.name()))?;
    }
    if let Some(source) = settings.credentials {
        source
            .check()
            .map_err(|error| error.at(Stage::Init).in_handler(site.name()))?;
    }
    if settings.connect == Connect::Lazy {
        return Ok(());
    }
    let slot = site.slot::<R>(parameter);
    let acquire = AcquireContext::new(site.name(), settings, None);
    match open::<R>(&acquire, true).await {
        Ok(resource) => slot.preload(resource),
        Err(error) => {
            let error = error.at(Stage::Init);
            tracing::warn!(%error, "not connected ahead; the first event will try again");
        }
    }
    Ok(())
}

async fn open<R: Resource>(acquire: &AcquireContext, connect: bool) -> Result<R, Error> {
    let target = Target::of::<R>(acquire);
    bounded(acquire, || format!("opening {target}"), async {
        let opening = async {
            let resource = catch_panic(R::NAME, "open", || R::open(acquire)).await??;
            if connect {
                // Boxed: a driver's connect future is large, and few invocations connect here.
                Box::pin(catch_panic(R::NAME, "connect", || {
                    resource.connect(acquire)
                }))
                .await??;
            }
            Ok(resource)
        };
        opening.await.map_err(|error: Error| match error.kind() {
            // The error of a foreign type, which does not name the resource.
            ErrorKind::Handler => {
                let message = format!("cannot open {target}: {}", error.message());
                Error::new(ErrorKind::Handler, message).caused_by(error)
            }
            _ => error,
        })
    })
    .await
}

/// The opened resource, as errors name it.
struct Target {
    name: &'static str,
    address: Option<String>,
}

impl Target {
    fn of<R: Resource>(acquire: &AcquireContext) -> Self {
        let url = acquire.settings().env.and_then(|name| env::var(name).ok());
        Self {
            name: R::NAME,
            address: url.as_deref().and_then(address),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match &self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// Returns host and port of a URL, if they cannot be part of a password.
fn address(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') {
        return None;
    }
    match authority.rsplit_once('@') {
        Some((_, address)) => Some(address.to_owned()),
        // Without an `@`, the text after the colon may be a password in a URL whose host is missing.
        None => authority.split(':').next().map(str::to_owned),
    }
    .filter(|address| !address.is_empty())
}

async fn bounded<T>(
    acquire: &AcquireContext,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout_at(acquire.until(), work).await {
        Ok(done) => done,
        Err(_) => Err(acquire.timeout_error(&what())),
    }
    .map_err(|error| error.at(Stage::Acquire).in_handler(acquire.handler()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_never_part_of_a_password() {
        for (url, shown) in [
            (
                "redis://me:hunter2@cache.example:6379/0",
                Some("cache.example:6379"),
            ),
            ("redis://cache.example:6379/0", Some("cache.example")),
            ("redis://me:hun@ter2@cache.example", Some("cache.example")),
            ("redis://me:hun/ter2@cache.example", None),
            ("redis://me:hun?ter2@cache.example", None),
            ("redis://me:hunter2/0", Some("me")),
            ("/a/file", None),
            ("file:///a/file", None),
            ("redis://me:hunter2@", None),
        ] {
            assert_eq!(address(url).as_deref(), shown, "{url}");
        }
    }
}
