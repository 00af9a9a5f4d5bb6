//! Broadcasts in virtual time.

use iceshare_sim::{Listening, Scenario, Wire, run};

fn heard(text: &str) -> Listening {
    let scenario = Scenario::parse(text).unwrap();
    let figures = run(&scenario, Wire::Types).figures;
    figures.listening.unwrap_or_else(|| panic!("nothing is live in {text}"))
}

/// Who can give much, little and nothing, and half of them a minute goes: all hear, soon and smoothly, and the source sends little.
#[test]
fn a_crowd_that_comes_and_goes_hears_a_broadcast() {
    let text = "
        seconds = 40.0
        live = { kbit = 96.0, settles = 15.0 }
        churn = { minute = 0.2, abrupt = 0.5 }
        crowd = { peers = 80, arrive = 5.0, declares = true }
    ";
    let scenario = Scenario::parse(text).unwrap();
    let out = run(&scenario, Wire::Encoded).figures;
    let again = run(&scenario, Wire::Counted).figures;
    let json = |f| serde_json::to_string(f).unwrap();
    assert_eq!(json(&out), json(&again), "the same seed, however messages go");
    let l = out.listening.unwrap();
    assert_eq!(l.silent, 0, "{l:?}");
    assert!((1.0..4.0).contains(&l.copies), "{l:?}");
    assert!(l.delay[1] < 0.6 && l.delay[1] >= l.bound[1], "{l:?}");
    assert!(l.starts.median < 0.4, "{l:?}");
    assert!(l.stalled < 0.005, "{l:?}");
}

/// Everybody plays from an uplink of two and a half copies, also after the broadcaster's line was cut and the tracker was dead.
#[test]
fn a_broadcast_survives_a_cut_and_the_tracker_s_death() {
    let text = "
        seconds = 50.0
        live = { kbit = 96.0, settles = 10.0, dark = [15.0, 3.0] }
        outage = { at = 25.0, seconds = 10.0 }
        origin = { up = 0.24 }
        crowd = { peers = 40, arrive = 5.0, declares = true }
    ";
    let l = heard(text);
    assert_eq!((l.silent, l.lost), (0, 0), "{l:?}");
    // Nobody can hear what nobody has: of 3 s that are cut a player has half in hand.
    let cut = 3.0 / 40.0;
    assert!(l.stalled < cut, "{l:?}");
    let without = heard(&text.replace("[15.0, 3.0]", "[0.0, 0.0]"));
    assert!(without.stalled < 0.001, "the tracker's death is not heard: {without:?}");
}
