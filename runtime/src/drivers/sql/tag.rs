//! Unique session names, which are known before a session is opened.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Eight characters, unique among the sessions of a server: of 1,000 at once, two are equal with a probability of 2 in
/// 10 million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 8;

impl Tag {
    pub(super) fn unique() -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // The seed is random per process, but the same in every copy of a snapshot (SnapStart). The clock differs.
        let now = std::time::SystemTime::now();
        let mut rest = SEED.hash_one((now, NEXT.fetch_add(1, Ordering::Relaxed)));
        let mut text = String::with_capacity(LENGTH);
        for _ in 0..LENGTH {
            let digit = usize::try_from(rest % 36).unwrap_or_default();
            text.push(char::from(DIGITS[digit]));
            rest /= 36;
        }
        Self(text)
    }

    /// Formats `label #tag`, truncated to `longest` bytes.
    #[cfg(feature = "postgres")]
    pub(super) fn after(&self, label: &str, longest: usize) -> String {
        let room = longest.saturating_sub(LENGTH + 2);
        let mut end = label.len().min(room);
        while !label.is_char_boundary(end) {
            end -= 1;
        }
        format!("{} #{self}", &label[..end])
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_sessions_share_a_tag() {
        let tags: HashSet<String> = (0..10_000).map(|_| Tag::unique().to_string()).collect();
        assert_eq!(tags.len(), 10_000);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_label_makes_room_for_the_tag() {
        let tag = Tag::unique();
        assert_eq!(tag.after("orders", 63), format!("orders #{tag}"));
        let long = tag.after(&"ü".repeat(60), 63);
        assert!(
            long.len() <= 63 && long.ends_with(&tag.to_string()),
            "{long}"
        );
    }
}
