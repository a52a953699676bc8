//! The seed of a test run.

/// The variable that repeats a run.
const VARIABLE: &str = "INTERLINE_TEST_SEED";

/// The seed: the environment's, else the test's own, else chance.
pub(super) fn choose(given: Option<u64>) -> u64 {
    let asked = std::env::var(VARIABLE).ok();
    match chosen(asked.as_deref(), given) {
        Ok(Some(seed)) => seed,
        Ok(None) => fastrand::u64(..),
        Err(why) => panic!("{why}"),
    }
}

fn chosen(asked: Option<&str>, given: Option<u64>) -> Result<Option<u64>, String> {
    let Some(asked) = asked.map(str::trim).filter(|asked| !asked.is_empty()) else {
        return Ok(given);
    };
    asked.parse().map(Some).map_err(|_| {
        format!(
            "{VARIABLE} is `{asked}`, which is no seed; write a whole number from 0 to 2^64 - 1"
        )
    })
}

/// How the run is repeated, as somebody types it.
pub(super) fn replay(seed: u64) -> String {
    let thread = std::thread::current();
    // The test harness names a test's thread after it.
    let test = thread
        .name()
        .filter(|name| *name != "main" && !name.starts_with("tokio-"));
    let test = test.map_or(String::new(), |name| format!(" {name}"));
    format!("seed {seed}; to replay: {VARIABLE}={seed} cargo test{test}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first_and_must_be_a_number() {
        assert_eq!(chosen(None, None), Ok(None));
        assert_eq!(chosen(Some(" "), Some(3)), Ok(Some(3)));
        assert_eq!(chosen(Some("12"), Some(3)), Ok(Some(12)));
        assert_eq!(
            chosen(Some("lucky"), None).unwrap_err(),
            "INTERLINE_TEST_SEED is `lucky`, which is no seed; write a whole number from 0 to \
             2^64 - 1"
        );
        assert_eq!(
            replay(7),
            "seed 7; to replay: INTERLINE_TEST_SEED=7 cargo test \
             testing::app::seed::tests::the_environment_comes_first_and_must_be_a_number"
        );
    }
}
