//! Phases 1 and 2: a lease on a generation that can serve, opened or reset.

use crate::{
    clock::Stamp,
    config::Connect,
    error::{Error, Stage},
    resource::{self, Acquire, Fitness, Resource},
    site::Site,
    slot::{Lease, Offer, Outdated, Released, Slot},
    timeline::{Phase, Timeline},
    unwind::{self, caught},
};
use std::{future::Future, sync::Arc};
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
    let _flight = bounded(acquire, "waiting for another invocation to open", async {
        Ok(slot.flight().await)
    })
    .await?;
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
    let resetting = caught::<R, _>("reset", || lease.resource().reset(idle));
    let fitness = timeout_at(acquire.until(), resetting).await;
    if let Ok(Err(panicked)) = &fitness {
        unwind::report(panicked, acquire.handler());
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
    bounded(acquire, "opening", async {
        let resource = caught::<R, _>("open", || R::open(acquire)).await??;
        if connect {
            // Boxed: what a driver needs to connect is large, and few invocations connect here.
            Box::pin(caught::<R, _>("connect", || resource.connect(acquire))).await??;
        }
        Ok(resource)
    })
    .await
}

async fn bounded<T>(
    acquire: &Acquire,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout_at(acquire.until(), work).await {
        Ok(done) => done,
        Err(_) => Err(acquire.timed_out(what)),
    }
    .map_err(|error| error.at(Stage::Acquire).in_handler(acquire.handler()))
}
