//! The connections to the database, over the whole run.

use crate::{
    clock::millis,
    limits::Limits,
    report::{
        Report,
        svg::{LEFT, RIGHT, Scale, Svg, time_axis},
        totals::open_over_time,
    },
};

pub(super) const LEGEND: &str = "<ul class=\"legend\"><li><i class=\"steps line\"></i>open, as the \
    proxies know it</li><li><i class=\"sample dot\"></i>on the server, when asked</li>\
    <li><i class=\"running\"></i>with a query running, on the server</li></ul>";

const TOP: f64 = 14.0;
const BOTTOM: f64 = 214.0;

pub(super) fn draw(report: &Report) -> String {
    let mut svg = Svg::new(BOTTOM + 40.0);
    let time = Scale {
        max: report.duration_ms,
        from: LEFT,
        to: RIGHT,
    };
    let steps = open_over_time(&report.environments);
    let of_proxies = steps.iter().map(|(_, open)| *open).max().unwrap_or(0);
    let of_server = report
        .samples
        .iter()
        .map(|sample| sample.connections)
        .max()
        .unwrap_or(0);
    let peak = as_f64(of_proxies.max(of_server).max(1));
    let count = Scale {
        max: peak * 1.08,
        from: BOTTOM,
        to: TOP,
    };
    for tick in count
        .ticks(5.0)
        .into_iter()
        .filter(|tick| tick.fract().abs() < 1e-9)
    {
        let y = count.at(tick);
        svg.line("grid", (LEFT, y), (RIGHT, y));
        svg.text("tick end", LEFT - 8.0, y + 4.0, &format!("{tick:.0}"));
    }
    svg.text("axis", 4.0, TOP - 2.0, "connections");
    time_axis(&mut svg, time, BOTTOM, BOTTOM);

    let mut line = vec![(LEFT, BOTTOM)];
    let mut y = BOTTOM;
    for (at, open) in steps {
        let x = time.at(at);
        line.push((x, y));
        y = count.at(as_f64(open));
        line.push((x, y));
    }
    line.push((RIGHT, y));
    let mut area = line.clone();
    area.push((RIGHT, BOTTOM));
    svg.path("area", &area);
    svg.path("steps", &line);

    let width = (time.at(millis(Limits::default().observer_interval)) - LEFT).clamp(1.0, 6.0);
    for sample in &report.samples {
        let x = time.at(sample.at);
        let running = count.at(as_f64(sample.running));
        svg.rect(
            "running",
            x - width / 2.0,
            running,
            width,
            BOTTOM - running,
            "",
        );
        let y = count.at(as_f64(sample.connections));
        let title = format!(
            "{} connections, {} running",
            sample.connections, sample.running
        );
        svg.rect("sample", x - 1.2, y - 1.2, 2.4, 2.4, &title);
    }
    svg.line("base", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.finish("connections to the database over time")
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
