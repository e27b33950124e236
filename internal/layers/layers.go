// Package layers holds the project to its picture of itself: who may import whom,
// what a signing box links, and that every package says what it promises.
//
// It has no code of its own; its tests read the tree.
package layers
