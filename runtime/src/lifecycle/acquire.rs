//! Phases 1 and 2: a lease on a generation that can serve, opened or reset.

use super::{
    site::Site,
    slot::{Lease, Offer, Outdated, Released, Slot},
    timeline::{Phase, Timeline},
};
use crate::{
    config::Connect,
    error::{Error, ErrorKind, Stage},
    resource::{self, Acquire, Fitness, Resource},
    util::{
        catch_panic::{self, catch_panic},
        clock::Stamp,
    },
};
use std::{env, fmt, future::Future, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// Leases what `slot` offers and can still serve, or opens anew. What it found too old or dead goes
/// to `outdated`, to be closed after the answer.
pub(super) async fn lease<R: Resource>(
    slot: &Arc<Slot<R>>,
    acquire: &Acquire,
    timeline: Option<&Timeline>,
    outdated: &mut Vec<Outdated<R>>,
) -> Result<Lease<R>, Error> {
    if let Some(lease) = kept(slot, acquire, timeline, outdated).await {
        return Ok(lease);
    }
    let waiting = || format!("waiting for another invocation to open {}", R::NAME);
    let _flight = bounded(acquire, waiting, async { Ok(slot.flight().await) }).await?;
    // Somebody else may have opened it meanwhile.
    if let Some(lease) = kept(slot, acquire, timeline, outdated).await {
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

/// A lease on what was kept, if it is still fit.
async fn kept<R: Resource>(
    slot: &Arc<Slot<R>>,
    acquire: &Acquire,
    timeline: Option<&Timeline>,
    outdated: &mut Vec<Outdated<R>>,
) -> Option<Lease<R>> {
    let from = Instant::now();
    let (lease, idle) = match slot.offer(acquire.settings(), Stamp::now()) {
        Offer::Kept { lease, idle } => (lease, idle),
        Offer::Empty { outdated: old } => {
            if old.is_some() {
                note_reset(timeline, from, || {
                    format!("{} too old or idle for too long: replaced", R::NAME)
                });
            }
            outdated.extend(old);
            return None;
        }
    };
    let resetting = catch_panic(R::NAME, "reset", || lease.resource().reset(idle));
    let fitness = timeout_at(acquire.until(), resetting).await;
    if let Ok(Err(panicked)) = &fitness {
        catch_panic::report(panicked, acquire.handler());
    }
    if let Ok(Ok(Fitness::Fit)) = fitness {
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
        outdated.push(old);
    }
    None
}

fn note_reset(timeline: Option<&Timeline>, from: Instant, what: impl FnOnce() -> String) {
    if let Some(timeline) = timeline {
        timeline.add(Phase::Reset, from, what());
    }
}

/// Gets a resource ready before the first event. Only what cannot heal by itself is an error: a
/// server that is down now may be up when the event comes.
pub(super) async fn prepare<R: Resource>(
    site: &'static Site,
    parameter: usize,
) -> Result<(), Error> {
    let settings = site.settings::<R>(parameter);
    // With credentials, the URL may be left to them.
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
    let acquire = Acquire::new(site.name(), settings, None);
    match open::<R>(&acquire, true).await {
        Ok(resource) => slot.preload(resource),
        Err(error) => {
            let error = error.at(Stage::Init);
            tracing::warn!(%error, "not connected ahead; the first event will try again");
        }
    }
    Ok(())
}

async fn open<R: Resource>(acquire: &Acquire, connect: bool) -> Result<R, Error> {
    let target = Target::of::<R>(acquire);
    bounded(acquire, || format!("opening {target}"), async {
        let opening = async {
            let resource = catch_panic(R::NAME, "open", || R::open(acquire)).await??;
            if connect {
                // Boxed: what a driver needs to connect is large, and few invocations connect here.
                Box::pin(catch_panic(R::NAME, "connect", || {
                    resource.connect(acquire)
                }))
                .await??;
            }
            Ok(resource)
        };
        opening.await.map_err(|error: Error| match error.kind() {
            // Somebody else's error, which does not say what it is about.
            ErrorKind::Handler => {
                let message = format!("cannot open {target}: {}", error.message());
                Error::new(ErrorKind::Handler, message).caused_by(error)
            }
            _ => error,
        })
    })
    .await
}

/// What is opened, as an error may name it.
struct Target {
    name: &'static str,
    address: Option<String>,
}

impl Target {
    fn of<R: Resource>(acquire: &Acquire) -> Self {
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

/// Host and port of a URL, where they are certain to be no part of a password.
fn address(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') {
        return None;
    }
    match authority.rsplit_once('@') {
        Some((_, address)) => Some(address.to_owned()),
        // Without an `@`, what stands behind the colon may be the password of somebody who forgot the host.
        None => authority.split(':').next().map(str::to_owned),
    }
    .filter(|address| !address.is_empty())
}

async fn bounded<T>(
    acquire: &Acquire,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout_at(acquire.until(), work).await {
        Ok(done) => done,
        Err(_) => Err(acquire.timed_out(&what())),
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
