"""Train a small network on a folder of recordings, prune it, halve its weights, and see the cost of each step.

python examples/train_and_prune.py DATA [EPOCHS [FOLDER]]
"""

import sys

import tinyscene as ts

data, epochs, folder = sys.argv[1], int((sys.argv[2:] or ["100"])[0]), (sys.argv[3:] or ["runs/pruned"])[0]
clips = ts.data.load(data)
network = ts.create_model("baseline2021", filters=(16, 16, 32), classes=len(clips.classes))
frontend = ts.LogMel(sample_rate=16_000, n_fft=1024, hop_length=320, n_mels=40)
classifier = ts.SceneClassifier(frontend, network, clips.classes)

stages = {
    "trained": ts.Fit(epochs=epochs, early_stopping=ts.EarlyStopping(patience=20)),
    "pruned": ts.FilterPruning("L2", ratio=0.5, by=ts.geometric_median),
    "tuned": ts.Fit(epochs=epochs, optimizer=ts.Adam(lr=3e-4)),
    "16 bit": ts.HalfPrecision(),
}
run = ts.Run(seed=0, folder=folder)
for name, stage in stages.items():
    classifier = stage(classifier, clips.development, run)
    scores = ts.evaluate(classifier, clips.test, run)
    size = ts.count(classifier, ts.rules.dcase2021).to_json()
    print(
        f"{name:8} {100 * scores.accuracy:5.1f} %, log loss {scores.log_loss:.3f}, "
        f"{size['parameters']:,} parameters ({size['convention']}), {size['kb']:.2f} KB"
    )

classifier = ts.SceneClassifier.load(classifier.save(f"{folder}/model"))
recording = clips.root / clips.test.rows[0].path
print(recording.name, "sounds like", classifier.predict(recording).label)
