//! The conformance suite over the two payload protocols that only tests have, which promise less than the real ones.

#[path = "../it/transports/gappy.rs"]
mod gappy;
#[path = "../it/transports/plain.rs"]
mod plain;

mod datagrams_with_losses {
    iceshare_testkit::conformance!(super::gappy::NAME);
}

mod bare_byte_ranges {
    use iceshare_testkit::Subject;

    /// Its deadlines are fixed: half a minute is for long runs.
    fn plain() -> Subject {
        let subject = Subject::linked(super::plain::NAME);
        if iceshare_tests::long() {
            return subject;
        }
        subject.without("pace::a_reader_that_never_reads", "it takes half a minute; see ICESHARE_LONG")
    }

    iceshare_testkit::conformance!(plain());
}

/// What the suite must find of a protocol over datagrams.
mod faults {
    use iceshare_testkit::{Subject, Verdict, verdict};

    fn found(fault: &str, case: &str, word: &str) {
        let subject = Subject::linked(super::gappy::NAME).set("loss", "0").set("fault", fault);
        match verdict(&subject, case) {
            Verdict::Failed(why) => assert!(why.contains(word), "{case} found something else: {why}"),
            other => panic!("{case} did not find it: {other:?}"),
        }
    }

    #[test]
    fn long_answers_to_whoever_is_named_as_the_sender() {
        found("1", "attacks::no_amplifier", "drew");
    }

    #[test]
    fn datagrams_in_any_order() {
        found("2", "network::disorder", "not those of the range");
    }
}
