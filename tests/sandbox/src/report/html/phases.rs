//! One bar per invocation, stacked from its phases.

use super::{class, tooltip};
use crate::{
    record::{Invocation, PhaseKind},
    report::{
        EnvironmentReport, Report,
        svg::{LEFT, RIGHT, Scale, Svg},
        table::ms,
    },
};

/// The maximum number of rows on a readable page.
const MAX_ROWS: usize = 60;
const GAP: f64 = 26.0;

pub(super) fn draw(report: &Report) -> String {
    let rows: Vec<&EnvironmentReport> = report.environments.iter().take(MAX_ROWS).collect();
    let most = rows
        .iter()
        .map(|environment| environment.invocations.len())
        .max()
        .unwrap_or(0);
    let height = match rows.len() {
        0..=2 => 170.0,
        3..=12 => 62.0,
        _ => 30.0,
    };
    let cell = ((RIGHT - LEFT) / as_f64(most.max(1))).min(96.0);
    let ceiling = ceiling(report);
    let mut svg = Svg::new(as_f64(rows.len()) * (height + GAP) + 34.0);
    for (row, environment) in rows.iter().enumerate() {
        let top = 16.0 + as_f64(row) * (height + GAP);
        let scale = Scale {
            max: ceiling,
            from: top + height,
            to: top,
        };
        axis(&mut svg, scale, environment.number);
        for (index, invocation) in environment.invocations.iter().enumerate() {
            let x = LEFT + as_f64(index) * cell;
            let dark = began_dark(environment, invocation);
            bar(
                &mut svg,
                scale,
                environment.number,
                invocation,
                Cell {
                    x,
                    width: cell,
                    dark,
                },
            );
        }
    }
    let bottom = 16.0 + as_f64(rows.len()) * (height + GAP);
    let every = (40.0 / cell).ceil().max(1.0);
    let every = if every > 1.0 {
        (every / 5.0).ceil() * 5.0
    } else {
        every
    };
    let mut number = every;
    while number <= as_f64(most) {
        let x = LEFT + (number - 0.5) * cell;
        svg.text("tick mid", x, bottom - GAP + 16.0, &format!("{number:.0}"));
        number += every;
    }
    let name = "number of the invocation in its environment";
    svg.text("axis mid", f64::midpoint(LEFT, RIGHT), bottom + 10.0, name);
    if report.environments.len() > rows.len() {
        let rest = report.environments.len() - rows.len();
        svg.text(
            "axis",
            LEFT,
            bottom + 10.0,
            &format!("{rest} more environments are not drawn"),
        );
    }
    svg.finish("the phases of every invocation")
}

#[derive(Clone, Copy)]
struct Cell {
    x: f64,
    width: f64,
    dark: bool,
}

/// The scale fits nine in ten of the warm invocations with a margin, so that a few that took a thousand
/// times as long do not flatten the others.
fn ceiling(report: &Report) -> f64 {
    let warm = report.invocations().filter(|invocation| !invocation.cold);
    let mut lengths: Vec<f64> = warm.map(length).collect();
    if lengths.is_empty() {
        lengths = report.invocations().map(length).collect();
    }
    lengths.sort_by(f64::total_cmp);
    let typical = lengths.get(lengths.len() * 9 / 10).copied().unwrap_or(1.0);
    let longest = report.invocations().map(length).fold(1.0, f64::max);
    (typical * 1.6).clamp(1.0, longest * 1.05)
}

fn length(invocation: &Invocation) -> f64 {
    invocation
        .phases
        .iter()
        .map(|phase| phase.to - phase.from)
        .sum()
}

/// Whether an open connection was already dark when the invocation began.
fn began_dark(environment: &EnvironmentReport, invocation: &Invocation) -> bool {
    let Some(first) = invocation.phases.first() else {
        return false;
    };
    environment.connections.iter().any(|connection| {
        let dark = connection.dark.is_some_and(|dark| dark <= first.from);
        // It stays dark for ever: only the first invocation is marked.
        let earlier = environment.invocations.iter().any(|other| {
            other.number < invocation.number
                && other
                    .phases
                    .first()
                    .is_some_and(|p| connection.dark.is_some_and(|d| d <= p.from))
        });
        dark && !earlier && connection.closed.is_none_or(|closed| closed > first.from)
    })
}

fn axis(svg: &mut Svg, scale: Scale, number: usize) {
    let short = scale.from - scale.to < 50.0;
    for tick in scale.ticks(if short { 1.5 } else { 3.0 }) {
        let y = scale.at(tick);
        svg.line("grid", (LEFT, y), (RIGHT, y));
        let text = if tick > 0.0 {
            ms_tick(tick)
        } else {
            "0".into()
        };
        svg.text("tick end small", LEFT - 6.0, y + 3.5, &text);
    }
    svg.line("base", (LEFT, scale.from), (RIGHT, scale.from));
    // Above the highest tick, which may be at the top edge.
    svg.text("", 4.0, scale.to - 7.0, &format!("env {number}"));
}

fn ms_tick(value: f64) -> String {
    if value >= 1000.0 {
        format!("{} s", value / 1000.0)
    } else {
        format!("{value} ms")
    }
}

fn bar(svg: &mut Svg, scale: Scale, number: usize, invocation: &Invocation, cell: Cell) {
    let Cell { x, width, dark } = cell;
    let bar = (width * 0.72).min(38.0);
    let left = x + (width - bar) / 2.0;
    let full = scale.from - scale.to;
    if !invocation.is_answered() {
        svg.rect("lost", x + 1.0, scale.to - 4.0, width - 2.0, full + 4.0, "");
    }
    if !invocation.is_answered() && width < 30.0 {
        // The bar hides the background of a narrow cell.
        svg.rect("kill", left, scale.to - 9.0, bar, 5.0, "");
    }
    let mut from = 0.0;
    for phase in invocation
        .phases
        .iter()
        .filter(|phase| phase.kind != PhaseKind::Frozen)
    {
        let to = from + (phase.to - phase.from);
        let (low, high) = (scale.at(from), scale.at(to));
        svg.rect(class(phase.kind), left, high, bar, low - high, "");
        from = to;
    }
    if from > scale.max {
        // Two strokes through the top mark a truncated bar.
        for offset in [6.0, 10.0] {
            let y = scale.to + offset;
            svg.path(
                "broken",
                &[(left - 2.0, y + 3.0), (left + bar + 2.0, y - 3.0)],
            );
        }
        if width >= 30.0 {
            svg.text("small mid", x + width / 2.0, scale.to - 5.0, &ms(from));
        }
    }
    if dark {
        svg.rect(
            "dark",
            left,
            scale.from + 2.0,
            bar,
            3.5,
            "its connection had been forgotten",
        );
    }
    svg.rect(
        "hover",
        x,
        scale.to - 4.0,
        width,
        full + 8.0,
        &tooltip(number, invocation),
    );
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heights of the texts that contain `what`.
    fn heights(svg: &str, what: &str) -> Vec<f64> {
        let texts = svg.split("<text").skip(1);
        let heights =
            texts.filter(|text| text.split('<').next().is_some_and(|it| it.contains(what)));
        heights
            .filter_map(|text| text.split("y=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect()
    }

    #[test]
    fn environment_name_does_not_overlap_ticks() {
        let mut svg = Svg::new(200.0);
        let scale = Scale {
            max: 10.0,
            from: 186.0,
            to: 16.0,
        };
        axis(&mut svg, scale, 0);
        let drawn = svg.finish("");
        let (names, ticks) = (heights(&drawn, ">env 0"), heights(&drawn, " ms"));
        assert!(names.len() == 1 && ticks.len() > 1, "{drawn}");
        let highest = ticks.iter().copied().fold(f64::MAX, f64::min);
        assert!(highest - names[0] >= 10.0, "{names:?} {ticks:?}");
    }
}
