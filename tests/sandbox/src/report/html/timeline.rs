//! One lane per environment, over the whole run.

use super::{class, tooltip};
use crate::{
    record::{Invocation, PhaseKind},
    report::{
        EnvironmentReport, Report,
        svg::{LEFT, RIGHT, Scale, Svg, time_axis},
        table::ms,
    },
};

/// The minimum visible width.
const MIN_WIDTH: f64 = 3.0;

pub(super) fn draw(report: &Report) -> String {
    let count = report.environments.len();
    let height = if count <= 20 { 24.0 } else { 13.0 };
    let bottom = lane_top(count, height);
    let mut svg = Svg::new(bottom + 40.0);
    let scale = Scale {
        max: report.duration_ms,
        from: LEFT,
        to: RIGHT,
    };
    time_axis(&mut svg, scale, 6.0, bottom);
    for (row, environment) in report.environments.iter().enumerate() {
        let top = lane_top(row, height);
        if count <= 40 || row.is_multiple_of(10) {
            let name = format!("env {}", environment.number);
            svg.text("tick end", LEFT - 8.0, top + height / 2.0 + 3.0, &name);
        }
        lane(&mut svg, scale, environment, top, height - 6.0);
    }
    svg.finish("what every environment did over time")
}

fn lane_top(row: usize, height: f64) -> f64 {
    8.0 + f64::from(u32::try_from(row).unwrap_or(u32::MAX)) * height
}

fn lane(svg: &mut Svg, scale: Scale, environment: &EnvironmentReport, top: f64, height: f64) {
    svg.rect("lane", LEFT, top, RIGHT - LEFT, height, "");
    let frozen_first = |kind| kind != PhaseKind::Frozen;
    let mut phases = environment.phases.clone();
    phases.sort_by_key(|phase| frozen_first(phase.kind));
    for phase in phases {
        let (from, to) = (scale.at(phase.from), scale.at(phase.to));
        let title = format!("{} for {}", class(phase.kind), ms(phase.to - phase.from));
        let least = if phase.kind == PhaseKind::Frozen {
            0.5
        } else {
            MIN_WIDTH
        };
        svg.rect(
            class(phase.kind),
            from,
            top,
            (to - from).max(least),
            height,
            &title,
        );
    }
    for invocation in &environment.invocations {
        bar(svg, scale, environment.number, invocation, top, height);
    }
    for connection in &environment.connections {
        let Some(dark) = connection.dark else {
            continue;
        };
        let to = connection.closed.unwrap_or(scale.max);
        let title = format!("the network is dark for a connection from {} on", ms(dark));
        let (from, to) = (scale.at(dark), scale.at(to));
        svg.rect(
            "dark",
            from,
            top + height,
            (to - from).max(MIN_WIDTH),
            3.5,
            &title,
        );
    }
}

/// An invocation: its phases if they fit, else one mark in its main colour.
fn bar(svg: &mut Svg, scale: Scale, number: usize, invocation: &Invocation, top: f64, height: f64) {
    let (Some(first), Some(last)) = (invocation.phases.first(), invocation.phases.last()) else {
        return;
    };
    let (from, to) = (scale.at(first.from), scale.at(last.to));
    let title = tooltip(number, invocation);
    if to - from < MIN_WIDTH {
        let class = if invocation.is_answered() {
            "handler"
        } else {
            "kill"
        };
        svg.rect(class, from, top, MIN_WIDTH, height, &title);
    } else {
        for phase in &invocation.phases {
            let (from, to) = (scale.at(phase.from), scale.at(phase.to));
            svg.rect(class(phase.kind), from, top, to - from, height, &title);
        }
    }
    if !invocation.is_answered() {
        let wide = (to - from).max(MIN_WIDTH);
        svg.rect(
            "lost-frame",
            from - 1.0,
            top - 1.0,
            wide + 2.0,
            height + 2.0,
            &title,
        );
    }
}
