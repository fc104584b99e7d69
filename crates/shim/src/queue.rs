//! Bytes that wait for a slow reader. Memory is given back as soon as nothing waits.

/// A first-in first-out queue of bytes.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Removes `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            *self = Queue::default();
        }
    }

    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut queue = Queue::default();
        let (mut pushed, mut taken) = (Vec::new(), Vec::new());
        for round in 0..200u32 {
            let bytes: Vec<u8> = (0..round % 17)
                .map(|number| (round + number) as u8)
                .collect();
            queue.push(&bytes);
            pushed.extend(bytes);
            let count = (round as usize * 7 % 13).min(queue.len());
            taken.extend_from_slice(&queue.waiting()[..count]);
            queue.consume(count);
        }
        taken.extend_from_slice(queue.waiting());
        queue.consume(usize::MAX / 2);
        assert_eq!(taken, pushed);
        assert!(queue.is_empty() && queue.bytes.capacity() == 0);
    }
}
