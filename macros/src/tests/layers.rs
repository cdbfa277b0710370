//! Data flows one way: a module uses only the modules above it.

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let layers = [
        ("diag", include_str!("../diag.rs")),
        ("path", include_str!("../path.rs")),
        ("keys", include_str!("../keys.rs")),
        ("args", include_str!("../args.rs")),
        ("value", include_str!("../value.rs")),
        ("number", include_str!("../number.rs")),
        ("choice", include_str!("../choice.rs")),
        ("settings", include_str!("../settings.rs")),
        ("budget", include_str!("../budget.rs")),
        ("types", include_str!("../types.rs")),
        ("item", include_str!("../item.rs")),
        ("signature", include_str!("../signature.rs")),
        ("model", include_str!("../model.rs")),
        ("wrapper", include_str!("../wrapper.rs")),
        ("expand", include_str!("../expand.rs")),
        ("fallback", include_str!("../fallback.rs")),
    ];
    for (above, (name, source)) in layers.iter().enumerate() {
        for (below, _) in layers.iter().skip(above) {
            let uses = source.contains(&format!("crate::{below}::"));
            assert!(!uses, "`{name}` uses `{below}`");
        }
    }
}
