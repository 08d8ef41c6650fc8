package ratelimit

// Kept is the number of refusals that d holds, as it counts them and in truth.
func Kept(d *Denials) (counted, held int) {
	for i := range d.shards {
		d.shards[i].mu.Lock()
		held += len(d.shards[i].entries)
		d.shards[i].mu.Unlock()
	}
	return int(d.count.Load()), held
}

// MostKept is how many refusals a Denials holds at most.
const MostKept = denialShards * denialsPerShard
