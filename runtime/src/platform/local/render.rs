//! Renders the timeline of an invocation as text.

use crate::lifecycle::timeline::{Entry, Phase};
use std::{fmt::Write, time::Duration};
use tokio::time::Instant;

/// Width of the bars in characters.
const WIDTH: u32 = 32;

/// Renders a line for the invocation, and one for each entry.
pub(super) fn render(
    number: usize,
    started: Instant,
    responded: Instant,
    entries: &[Entry],
) -> String {
    let ended = entries
        .iter()
        .map(|entry| entry.to)
        .fold(responded, Instant::max);
    let whole = ended - started;
    let mut text = format!(
        "event {number}: response after {} ms, done after {} ms\n",
        ms(responded - started),
        ms(whole)
    );
    for entry in entries {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:8} {:>9} ms |{}| {}",
            name(entry.phase),
            ms(entry.to - entry.from),
            bar(entry.from - started, entry.to - started, whole),
            entry.what
        );
    }
    text
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Init => "init",
        Phase::Reset => "reset",
        Phase::Handler => "handler",
        Phase::Response => "response",
        Phase::Cleanup => "cleanup",
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
    // Every entry is visible, however short it was.
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
                phase: Phase::Cleanup,
                from: at(3),
                to: at(4),
                what: "closed".into(),
            },
        ];
        let text = render(1, started, at(3), &entries);
        assert!(text.starts_with("event 1: response after 3.00 ms, done after 4.00 ms\n"));
        assert!(text.contains("  handler       3.00 ms |########################        | ran\n"));
        assert!(
            text.contains("  cleanup       1.00 ms |                        ########| closed\n")
        );
    }
}
