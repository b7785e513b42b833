//! Numbered places whose numbers are used again, with a generation that tells old users from new ones.

/// A place: what is in it, and how often it changed hands.
struct Slot<T> {
    generation: u32,
    content: Option<T>,
}

/// Numbered places. A freed number is given out again, under the next generation.
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

/// Generations are below this, so that a token with it in the upper half is nobody's.
const GENERATION_END: u32 = u32::MAX;

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The token that the next [`Slots::insert`] will answer to: generation above, index below.
    pub(crate) fn next_token(&self) -> usize {
        match self.free.last() {
            Some(&index) => token(self.slots[index as usize].generation, index),
            None => token(0, self.slots.len() as u32),
        }
    }

    /// Puts `content` in a place and returns its index.
    pub(crate) fn insert(&mut self, content: T) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.slots[index as usize].content = Some(content);
                index
            }
            None => {
                self.slots.push(Slot { generation: 0, content: Some(content) });
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Empties a place.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let content = slot.content.take()?;
        slot.generation = (slot.generation + 1) % GENERATION_END;
        self.free.push(index);
        Some(content)
    }

    /// What is in a place, whoever put it there.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.content.as_mut()
    }

    /// The index a token names, if what it was made for is still there.
    pub(crate) fn find(&self, token: usize) -> Option<u32> {
        let index = token as u32;
        let slot = self.slots.get(index as usize)?;
        (slot.content.is_some() && slot.generation as usize == token >> 32).then_some(index)
    }

    /// Everything there is.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.slots).filter_map(|(index, slot)| Some((index, slot.content.as_mut()?)))
    }
}

fn token(generation: u32, index: u32) -> usize {
    (generation as usize) << 32 | index as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_does_not_find_the_successor() {
        let mut slots = Slots::new();
        let old = slots.next_token();
        let index = slots.insert('a');
        assert_eq!(slots.find(old), Some(index));
        assert_eq!(slots.remove(index), Some('a'));
        assert_eq!(slots.find(old), None);
        let new = slots.next_token();
        assert_eq!(slots.insert('b'), index);
        assert_eq!((slots.find(old), slots.find(new)), (None, Some(index)));
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.remove(7), None);
    }
}
