//! Whole runs of scenarios: in virtual time, so that no bound can be missed by chance.

use iceshare_sim::{Scenario, Wire, plot, run};

/// The scenarios of this folder.
fn scenarios() -> Vec<(String, Scenario)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let read = |p: std::path::PathBuf| {
        let text = std::fs::read_to_string(&p).unwrap();
        let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{}: {e:#}", p.display()));
        (p.file_stem().unwrap().to_string_lossy().into_owned(), scenario)
    };
    files.map(read).collect()
}

#[test]
fn every_scenario_can_be_read_and_says_what_it_shows() {
    let all = scenarios();
    assert!(all.len() >= 2);
    for (name, s) in all {
        assert!(!s.about.is_empty(), "{name}: about");
    }
}

/// The standard crowd with a small file: repeated exactly, complete, near the bound, and drawn.
#[test]
fn a_small_crowd_completes_near_its_bound_and_the_same_way_again() {
    let text = "name = 'small'\nmedia = { bytes = 4_194_304 }\ncrowd = { peers = 30 }";
    let scenario = Scenario::parse(text).unwrap();
    let out = run(&scenario, Wire::Encoded);
    let again = run(&scenario, Wire::Counted).figures;
    let json = |f| serde_json::to_string(f).unwrap();
    assert_eq!(json(&out.figures), json(&again), "the same seed, however messages go");

    let c = out.figures.completion.as_ref().unwrap();
    assert_eq!((c.finished, c.wanted), (30, 30));
    let over = c.over_bound.unwrap();
    assert!((1.0..2.0).contains(&over), "nobody is faster than the bound: {over}");
    assert!((1.0..2.0).contains(&c.local_over_bound.unwrap()), "nor is the yardstick");
    assert!(out.figures.origin.copies >= 1.0, "the crowd has it from the origin");
    assert!(out.figures.twice < 0.05);
    assert!(out.figures.control.share.unwrap() < 0.1);
    let wanted: u64 = 30 * out.figures.bytes;
    assert!(out.figures.sent >= wanted && out.figures.sent < wanted + wanted / 10);

    let svg = plot(&scenario, &out);
    assert!(svg.starts_with("<svg") && svg.contains("fluid bound") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn another_seed_is_another_run() {
    let text = "media = { bytes = 1_048_576 }\ncrowd = { peers = 8 }\nyardstick = { run = false }";
    let scenario = Scenario::parse(text).unwrap();
    let other = Scenario { seed: 2, ..scenario.clone() };
    assert_ne!(run(&scenario, Wire::Types).done, run(&other, Wire::Types).done);
}

#[test]
fn an_origin_rests_beside_a_crowd_that_needs_no_help() {
    let text = |up: f64| {
        format!(
            "media = {{ bytes = 4_194_304 }}
            origin = {{ up = 4.0 }}
            yardstick = {{ run = false }}
            crowd = {{ peers = 40, class = [{{ up = {up:?} }}] }}"
        )
    };
    let copies = |up| run(&Scenario::parse(&text(up)).unwrap(), Wire::Types).figures.origin.copies;
    assert!(copies(4.0) < 1.1, "a fortieth more would not be felt");
    assert!(copies(0.5) > 2.0, "a fifth more is");
}

/// Some alter pages, some take requests and send nothing, some give nothing, and all come and go: who stays has everything.
#[test]
fn a_crowd_with_liars_free_riders_and_churn_completes() {
    let text = "
        seconds = 100.0
        media = { bytes = 2_097_152 }
        churn = { minute = 0.3, abrupt = 0.5 }
        [crowd]
        peers = 20
        arrive = 5.0
        loss = 0.001
        [[crowd.class]]
        name = 'honest'
        share = 7.0
        [[crowd.class]]
        name = 'alters'
        share = 1.0
        conduct = 'alters'
        [[crowd.class]]
        name = 'mute'
        share = 1.0
        conduct = 'mute'
        [[crowd.class]]
        name = 'rides'
        share = 1.0
        serves = false
    ";
    let figures = run(&Scenario::parse(text).unwrap(), Wire::Types).figures;
    let c = figures.completion.as_ref().unwrap();
    // Who came in the last seconds could not.
    assert!(c.finished + 4 >= c.wanted && c.wanted >= 20, "{figures:#?}");
    assert!(figures.altered > 0, "the test has a point");
    assert_eq!(figures.classes[3].ratio, 0.0);
}
