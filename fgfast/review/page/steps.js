// Undo and redo of mending: a stroke a step. What is kept of a step is small (run lengths).
const MOST = 200;

export class Steps {
  constructor() { this.past = []; this.future = []; }

  // Remembers how it was before a step.
  push(before) {
    this.past.push(before);
    if (this.past.length > MOST) this.past.shift();
    this.future = [];
  }

  undo(now) {
    if (!this.past.length) return null;
    this.future.push(now);
    return this.past.pop();
  }

  redo(now) {
    if (!this.future.length) return null;
    this.past.push(now);
    return this.future.pop();
  }
}
