//! A list whose places are used again, so that an index stays valid while its item lives.

#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, item: T) -> usize {
        if let Some(at) = self.free.pop() {
            self.items[at] = Some(item);
            return at;
        }
        self.items.push(Some(item));
        self.items.len() - 1
    }

    /// Where the next item will be.
    pub(super) fn next(&self) -> usize {
        self.free.last().copied().unwrap_or(self.items.len())
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.items.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.items.get_mut(at)?.as_mut()
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        let item = self.items.get_mut(at)?.take();
        if item.is_some() {
            self.free.push(at);
        }
        item
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let items = self.items.iter().enumerate();
        items.filter_map(|(at, item)| Some((at, item.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_used_again_and_an_empty_one_is_nothing() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert("one"), slab.insert("two"));
        assert_eq!(slab.remove(one), Some("one"));
        assert_eq!(slab.remove(one), None);
        assert_eq!(slab.get(one), None);
        assert_eq!(slab.insert("three"), one);
        assert_eq!(slab.get_mut(two), Some(&mut "two"));
        assert_eq!(slab.iter().map(|(at, _)| at).collect::<Vec<_>>(), [0, 1]);
    }
}
