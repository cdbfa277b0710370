//! One invocation's phases, as a picture in text.

use crate::lifecycle::timeline::{Entry, Phase};
use std::{fmt::Write, time::Duration};
use tokio::time::Instant;

/// Characters for the whole invocation.
const WIDTH: u32 = 32;

/// A line for the invocation, and one for each thing that happened in it.
pub(super) fn picture(
    number: usize,
    started: Instant,
    answered: Instant,
    entries: &[Entry],
) -> String {
    let ended = entries
        .iter()
        .map(|entry| entry.to)
        .fold(answered, Instant::max);
    let whole = ended - started;
    let mut picture = format!(
        "event {number}: answered after {} ms, done after {} ms\n",
        ms(answered - started),
        ms(whole)
    );
    for entry in entries {
        // Writing to a string cannot fail.
        let _ = writeln!(
            picture,
            "  {:7} {:>9} ms |{}| {}",
            name(entry.phase),
            ms(entry.to - entry.from),
            bar(entry.from - started, entry.to - started, whole),
            entry.what
        );
    }
    picture
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Init => "init",
        Phase::Reset => "reset",
        Phase::Handler => "handler",
        Phase::Answer => "answer",
        Phase::Finally => "finally",
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}

fn bar(from: Duration, to: Duration, whole: Duration) -> String {
    let column = |at: Duration| {
        let whole = whole.as_nanos().max(1);
        let column = at.as_nanos() * u128::from(WIDTH) / whole;
        usize::try_from(column).unwrap_or_default()
    };
    let width = WIDTH as usize;
    let first = column(from).min(width - 1);
    // Whatever happened is seen, however short it was.
    let last = column(to).clamp(first + 1, width);
    let (before, during) = (" ".repeat(first), "#".repeat(last - first));
    format!("{before}{during}{}", " ".repeat(width - last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_lie_where_the_time_went() {
        let at = Duration::from_millis;
        assert_eq!(
            bar(at(0), at(16), at(32)),
            format!("{}{}", "#".repeat(16), " ".repeat(16))
        );
        assert_eq!(bar(at(31), at(32), at(32)), format!("{}#", " ".repeat(31)));
    }

    #[test]
    fn what_took_no_time_is_still_seen() {
        let at = Duration::from_millis;
        assert_eq!(bar(at(32), at(32), at(32)).matches('#').count(), 1);
        assert_eq!(bar(at(0), at(0), at(0)).matches('#').count(), 1);
    }

    #[test]
    fn the_picture_says_what_the_caller_waited_for() {
        let started = Instant::now();
        let at = |ms| started + Duration::from_millis(ms);
        let entries = [
            Entry {
                phase: Phase::Handler,
                from: at(0),
                to: at(3),
                what: "ran".into(),
            },
            Entry {
                phase: Phase::Finally,
                from: at(3),
                to: at(4),
                what: "closed".into(),
            },
        ];
        let picture = picture(1, started, at(3), &entries);
        assert!(picture.starts_with("event 1: answered after 3.00 ms, done after 4.00 ms\n"));
        assert!(
            picture.contains("  handler      3.00 ms |########################        | ran\n")
        );
        assert!(
            picture.contains("  finally      1.00 ms |                        ########| closed\n")
        );
    }
}
