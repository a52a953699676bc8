/// The candidate that was most probably meant by `name`, if one is near enough.
///
/// Case, and `-` against `_`, do not count as a difference. Of two candidates that are equally
/// near the first is taken.
pub(crate) fn suggest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // A configuration file may hold a key of any length, and the distance costs its square.
    const LONGEST: usize = 64;
    let folded = fold(name);
    let length = folded.chars().count();
    if length > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| {
            let other = fold(candidate);
            // One slip in a short word, two in a longer one, up to a third of the letters.
            let allowed = (length.max(other.chars().count()) / 3).max(1);
            (distance(&folded, &other), allowed, candidate)
        })
        .filter(|(slips, allowed, _)| slips <= allowed)
        .min_by_key(|(slips, _, _)| *slips)
        .map(|(_, _, candidate)| candidate)
}

/// One spelling for what people and environments write in several: case, and `-` for `_`.
pub(super) fn fold(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Levenshtein distance, where two neighbouring letters swapped count as one slip.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1; right.len() + 1];
        for (j, b) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = last;
        last = row;
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("prefetch", "prefecth"), 1);
        assert_eq!(distance("grün", "grun"), 1);
    }

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["prefetch", "password", "url", "vhost"];
        assert_eq!(suggest("prefetsh", known), Some("prefetch"));
        assert_eq!(suggest("passwrod", known), Some("password"));
        assert_eq!(suggest("ulr", known), Some("url"));
        assert_eq!(suggest("colour", known), None);
        assert_eq!(suggest("", known), None);
        assert_eq!(suggest("x", []), None);
    }

    #[test]
    fn another_spelling_is_no_difference() {
        let known = ["connection_pool_sizes", "connection_pool_size"];
        assert_eq!(
            suggest("Connection-Pool-Size", known),
            Some("connection_pool_size")
        );
    }

    #[test]
    fn a_name_of_any_length_is_answered_at_once() {
        assert_eq!(suggest(&"a".repeat(1_000_000), ["aaaa"]), None);
    }
}
