//! One invocation: delivered, responded to, and ended by the next poll.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use super::Life;
use crate::{
    api::{Answer, Board, Call, CallState},
    function::Event,
    process::describe,
    record::{After, Invocation, Outcome, Phase, PhaseKind},
};

/// A request of the environment.
pub(crate) struct Order {
    pub(crate) event: Event,
    pub(crate) number: u32,
    /// When the caller sent the request: before a cold start.
    pub(crate) asked: Instant,
    /// Whether the caller waited for a cold start.
    pub(crate) cold: bool,
    /// The phases of that cold start, if this caller triggered it.
    pub(crate) init: Option<Vec<Phase>>,
}

/// Why waiting for the function ended.
enum Seen {
    Yes,
    Exited,
}

/// The instants of one call.
struct Course {
    from: Instant,
    dispatched: Option<Instant>,
    first_byte: Option<Instant>,
    answered: Option<Instant>,
    over: Instant,
    killed: Option<Instant>,
}

impl Life {
    /// Delivers one event to the function and follows it to its end.
    pub(crate) async fn invoke(&self, order: Order) -> Invocation {
        let _busy = Busy::begin(&self.in_flight);
        self.thaw().await;
        let from = if order.init.is_some() {
            Instant::now()
        } else {
            order.asked
        };
        let id = crate::ids::uuid();
        let trace = crate::ids::trace(self.wall.epoch_ms());
        self.desk.board.send_modify(|board| {
            board
                .calls
                .insert(id.clone(), Call::new(order.event, trace));
            board.queue.push_back(id.clone());
        });

        let (outcome, after, course) = self.follow(&id, from).await;
        self.desk
            .board
            .send_modify(|board| board.queue.retain(|waiting| *waiting != id));
        let answered = course.answered.unwrap_or(course.over);
        let handed_over = course.dispatched.unwrap_or(course.over);
        let mut phases = order.init.unwrap_or_default();
        phases.extend(self.phases(&course));
        Invocation {
            request_id: id,
            number: order.number,
            cold: order.cold,
            outcome,
            waited: answered.saturating_duration_since(order.asked),
            billed: course.over.saturating_duration_since(handed_over),
            after,
            phases,
        }
    }

    async fn follow(&self, id: &str, from: Instant) -> (Outcome, After, Course) {
        let timeout = self.desk.identity.timeout;
        let taken = |call: &Call, _: &Board| call.dispatched.is_some();
        let mut seen = self.until(id, from + timeout, taken).await;
        let dispatched = self.call(id, |call| call.dispatched);
        let deadline = dispatched.unwrap_or(from) + timeout;
        if matches!(seen, Some(Seen::Yes)) {
            let answered = |call: &Call, _: &Board| matches!(call.state, CallState::Answered(_));
            seen = self.until(id, deadline, answered).await;
        }
        let over = Instant::now();
        let mut course = Course {
            from,
            dispatched,
            first_byte: None,
            answered: None,
            over,
            killed: None,
        };
        let (outcome, after) = match seen {
            Some(Seen::Yes) => {
                let outcome = self.outcome(id, &mut course);
                (outcome, self.rest(id, deadline, &mut course).await)
            }
            Some(Seen::Exited) => (
                Outcome::Crashed {
                    status: self.crashed(&mut course).await,
                },
                After::NoAnswer,
            ),
            None => {
                self.expire(id);
                self.kill_at_deadline(&mut course).await;
                (Outcome::TimedOut, After::NoAnswer)
            }
        };
        (outcome, after, course)
    }

    /// After the response: waits until the function polls again and the extensions are done.
    async fn rest(&self, id: &str, deadline: Instant, course: &mut Course) -> After {
        let over = |call: &Call, board: &Board| {
            let done = call.dispatched.and_then(|at| board.extensions_done(at));
            call.polled.is_some() && done.is_some()
        };
        let rest = self.until(id, deadline, over).await;
        course.over = Instant::now();
        match rest {
            Some(Seen::Yes) => {
                let board = self.desk.board.borrow();
                let polled = board.calls.get(id).and_then(|call| call.polled);
                let extensions = course.dispatched.and_then(|at| board.extensions_done(at));
                course.over = polled.max(extensions).unwrap_or(course.over);
                After::Polled
            }
            Some(Seen::Exited) => {
                self.crashed(course).await;
                After::Exited
            }
            None => {
                self.kill_at_deadline(course).await;
                After::KilledAtDeadline
            }
        }
    }

    /// With a concurrency of 1, the deadline ends the environment. With more, as on Lambda Managed Instances,
    /// it ends only the invocation: the process and its other work continue.
    async fn kill_at_deadline(&self, course: &mut Course) {
        if self.desk.identity.concurrency == 1 {
            self.end("TIMEOUT").await;
            course.killed = Some(Instant::now());
        }
    }

    /// Handles the end of the process: returns the kernel's status, and ends the processes that it left.
    async fn crashed(&self, course: &mut Course) -> String {
        let (exited, error) = {
            let board = self.desk.board.borrow();
            (board.exited, board.extension_error().map(str::to_owned))
        };
        if let Some((_, at)) = exited {
            course.over = at.max(course.answered.unwrap_or(course.from));
        }
        self.end("FAILURE").await;
        error
            .or_else(|| exited.map(|(status, _)| describe(status)))
            .unwrap_or_default()
    }

    /// Waits for a state of one call, or for the end of the process.
    async fn until(
        &self,
        id: &str,
        until: Instant,
        ready: impl Fn(&Call, &Board) -> bool,
    ) -> Option<Seen> {
        let seen = self.wait(until, |board| {
            if board.calls.get(id).is_some_and(|call| ready(call, board)) {
                Some(Seen::Yes)
            } else {
                let gone = board.exited.is_some() || board.extension_error().is_some();
                gone.then_some(Seen::Exited)
            }
        });
        seen.await
    }

    fn call<T>(&self, id: &str, read: impl Fn(&Call) -> Option<T>) -> Option<T> {
        self.desk.board.borrow().calls.get(id).and_then(read)
    }

    fn expire(&self, id: &str) {
        self.desk.board.send_modify(|board| {
            if let Some(call) = board.calls.get_mut(id) {
                call.state = CallState::Expired;
            }
        });
    }

    fn outcome(&self, id: &str, course: &mut Course) -> Outcome {
        let board = self.desk.board.borrow();
        let Some(call) = board.calls.get(id) else {
            return Outcome::TimedOut;
        };
        course.answered = call.answered;
        match &call.state {
            CallState::Answered(Answer::Response { body, streamed }) => {
                course.first_byte = call.first_byte.filter(|_| *streamed);
                Outcome::Answered { body: body.clone() }
            }
            CallState::Answered(Answer::Error {
                error_type,
                message,
            }) => Outcome::Failed {
                error_type: error_type.clone(),
                message: message.clone(),
            },
            _ => Outcome::TimedOut,
        }
    }

    fn phases(&self, course: &Course) -> Vec<Phase> {
        // The end of each phase; a phase that did not take place has none.
        let handed_over = course.dispatched;
        let answered = handed_over.map(|_| course.answered.unwrap_or(course.over));
        let ends = [
            (PhaseKind::Wait, Some(handed_over.unwrap_or(course.over))),
            (PhaseKind::Handler, course.first_byte.or(answered)),
            (PhaseKind::Stream, course.first_byte.and(answered)),
            (PhaseKind::After, course.answered.map(|_| course.over)),
            (PhaseKind::Kill, course.killed),
        ];
        let mut from = course.from;
        let mut phases = Vec::new();
        for (kind, end) in ends {
            if let Some(to) = end {
                phases.push(self.journal.phase(kind, from, to));
                from = to;
            }
        }
        phases
    }
}

/// Counts the running invocations: a busy environment is not stopped.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
