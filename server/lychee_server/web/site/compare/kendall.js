/** How alike two orders are. */

/**
 * Return Kendall's tau-b of two lists of numbers, from -1 to 1; null where one of them has no order.
 *
 * Source: Kendall, The treatment of ties in ranking problems, 1945. By all pairs, which 1,000 documents allow.
 */
export function kendallTau(one, other) {
  let balance = 0;
  let tiedOne = 0;
  let tiedOther = 0;
  const pairs = (one.length * (one.length - 1)) / 2;
  for (let i = 0; i < one.length; i += 1) {
    for (let j = 0; j < i; j += 1) {
      const first = Math.sign(one[i] - one[j]);
      const second = Math.sign(other[i] - other[j]);
      balance += first * second;
      tiedOne += first === 0;
      tiedOther += second === 0;
    }
  }
  const scale = Math.sqrt((pairs - tiedOne) * (pairs - tiedOther));
  return scale ? balance / scale : null;
}
