package holder

import "time"

const defaultEvery = 15 * time.Minute
