package lint

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// modelRequest is what a limit may be kept by.
var modelKeys = []string{"ip", "user", "path"}

// bucketOf is the bucket that a request is charged to.
func bucketOf(l *limit, request map[string]string) string {
	bucket := ""
	for _, key := range modelKeys {
		if slices.Contains(l.By, key) {
			bucket += key + "=" + request[key] + " "
		}
	}
	return bucket
}

func modelLimit(random *rand.Rand) *limit {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	l := &limit{Rate: pick("2/1s", "4/2s", "4/1s", "8/1s"), Burst: int64(random.IntN(3) * 3)}
	for _, key := range modelKeys {
		if random.IntN(2) == 0 {
			l.By = append(l.By, key)
		}
	}
	if len(l.By) == 0 {
		l.By = []string{"all"}
	}
	if random.IntN(4) == 0 {
		l.On = []on{{[]string{"GET"}, pick("/a", "/b")}}
	}
	return l
}

// TestALimitThatNeverBitesRefusesNothing sends traffic through two limits that
// are charged together and holds that the second never refuses alone.
func TestALimitThatNeverBitesRefusesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	idle, bites := 0, 0
	for range 3000 {
		a, b := modelLimit(random), modelLimit(random)
		alone := refusesAlone(t, random, a, b)
		if !forestalls(a, b) {
			bites += alone
			continue
		}
		idle++
		if alone > 0 {
			t.Fatalf("%+v refuses %d requests that %+v lets pass", b, alone, a)
		}
	}
	if idle < 50 || bites < 50 {
		t.Fatalf("%d idle limits, %d refusals of the others: the model is asked too little", idle, bites)
	}
}

// refusesAlone counts the requests that only b refuses.
func refusesAlone(t *testing.T, random *rand.Rand, a, b *limit) (count int) {
	t.Helper()
	full := make(map[*limit]map[string]int64)
	now := int64(1)
	for range 60 {
		now += int64(random.IntN(300_000))
		request := map[string]string{
			"ip": string(rune('1' + random.IntN(2))), "user": string(rune('u' + random.IntN(2))), "path": []string{"/a", "/b"}[random.IntN(2)],
		}
		var charged []*limit
		refused := make(map[*limit]bool)
		after := make(map[*limit]int64)
		for _, l := range []*limit{a, b} {
			if len(l.On) > 0 && l.On[0].Pattern != request["path"] {
				continue
			}
			rate, err := ratelimit.ParseRate(l.Rate)
			if err != nil {
				t.Fatal(err)
			}
			rate.Burst = l.Burst
			tat, result := ratelimit.Decide(now, full[l][bucketOf(l, request)], rate, 1)
			charged, refused[l], after[l] = append(charged, l), !result.Allowed, tat
		}
		if refused[b] && !refused[a] {
			count++
		}
		if refused[a] || refused[b] {
			continue
		}
		for _, l := range charged {
			if full[l] == nil {
				full[l] = make(map[string]int64)
			}
			full[l][bucketOf(l, request)] = after[l]
		}
	}
	return count
}

func TestOneLimitForestallsAnotherOnlyWhereThatIsSure(t *testing.T) {
	plain := limit{Rate: "100/1m", By: []string{"ip"}}
	wide := limit{Rate: "200/1m", By: []string{"ip"}}
	with := func(l limit, change func(*limit)) *limit {
		change(&l)
		return &l
	}
	for name, row := range map[string]struct {
		a, b *limit
		want bool
	}{
		"slower and smaller":         {&plain, &wide, true},
		"faster":                     {&wide, &plain, false},
		"a small burst bites":        {&plain, with(wide, func(l *limit) { l.Burst = 10 }), false},
		"a finer key":                {&plain, with(wide, func(l *limit) { l.By = []string{"ip", "path"} }), true},
		"a coarser key":              {with(plain, func(l *limit) { l.By = []string{"ip", "path"} }), &wide, false},
		"another key":                {&plain, with(wide, func(l *limit) { l.By = []string{"user"} }), false},
		"all together":               {with(plain, func(l *limit) { l.By = []string{"all"} }), &wide, true},
		"shadow refuses nothing":     {with(plain, func(l *limit) { l.Mode = "shadow" }), &wide, false},
		"a tier lets more pass":      {with(plain, func(l *limit) { l.Tier = map[string]string{"admin": "9000/1m"} }), &wide, false},
		"a tier that bites":          {&plain, with(wide, func(l *limit) { l.Tier = map[string]string{"guest": "5/1m"} }), false},
		"a tier that bites neither":  {&plain, with(wide, func(l *limit) { l.Tier = map[string]string{"admin": "300/1m"} }), true},
		"only some answers count":    {with(plain, func(l *limit) { l.Count = []int{401} }), &wide, false},
		"fewer answers count":        {&plain, with(wide, func(l *limit) { l.Count = []int{401} }), true},
		"other answers count":        {with(plain, func(l *limit) { l.Count = []int{401} }), with(wide, func(l *limit) { l.Count = []int{403} }), false},
		"only some requests":         {with(plain, func(l *limit) { l.On = []on{{[]string{"*"}, "/a"}} }), &wide, false},
		"the same requests":          {with(plain, func(l *limit) { l.On = []on{{[]string{"*"}, "/a"}} }), with(wide, func(l *limit) { l.On = []on{{[]string{"*"}, "/a"}} }), true},
		"all requests":               {with(plain, func(l *limit) { l.On = []on{{[]string{"*"}, "/**"}} }), &wide, true},
		"an exception":               {with(plain, func(l *limit) { l.Except = []string{"10.0.0.0/8"} }), &wide, false},
		"the same exception":         {with(plain, func(l *limit) { l.Except = []string{"10.0.0.0/8"} }), with(wide, func(l *limit) { l.Except = []string{"10.0.0.0/8"} }), true},
		"open while the store falls": {with(plain, func(l *limit) { l.OnError = "open" }), &wide, false},
		"another share":              {with(plain, func(l *limit) { l.Instances = 3 }), &wide, false},
		"a parameter":                {with(plain, func(l *limit) { l.By = []string{"param:x"} }), with(wide, func(l *limit) { l.By = []string{"param:x"} }), false},
		"a rate from outside":        {with(plain, func(l *limit) { l.Rate = "{env.RATE}" }), &wide, false},
		"the other from outside":     {&plain, with(wide, func(l *limit) { l.Rate = "{env.RATE}" }), false},
		"a tier from outside":        {&plain, with(wide, func(l *limit) { l.Tier = map[string]string{"admin": "{env.RATE}"} }), false},
	} {
		if got := forestalls(row.a, row.b); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
